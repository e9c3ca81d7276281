//! A thread that belongs to a runtime: started when it is first needed, and ended with its owner.

use std::sync::PoisonError;

use crate::error::Result;
use crate::sync::{Builder, JoinHandle, Mutex, Thread, current};

/// A thread that is started once.
#[derive(Debug)]
pub(super) struct OwnThread {
    name: &'static str,
    handle: Mutex<Option<JoinHandle<()>>>,
    pid: u32,
}

impl OwnThread {
    /// One of that name, which is not started yet.
    pub(super) fn new(name: &'static str) -> Self {
        OwnThread { name, handle: Mutex::new(None), pid: std::process::id() }
    }

    /// One as the child of a fork has it.
    #[cfg(test)]
    pub(super) fn of_parent() -> Self {
        OwnThread { pid: 0, ..OwnThread::new("parent") }
    }

    /// Whether this is not the child of a fork, which has no such thread, and maybe locks that nobody releases.
    pub(super) fn is_here(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Starts it, if it was not started. `run` must not panic.
    ///
    /// # Errors
    /// `Io` when the system cannot.
    pub(super) fn start(&self, run: impl FnOnce() + Send + 'static) -> Result<Thread> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*handle {
            return Ok(handle.thread().clone());
        }
        let builder = Builder::new().name(self.name.to_owned());
        let started = builder.spawn(run).map_err(clawdbot_kernels::Error::Thread)?;
        Ok(handle.insert(started).thread().clone())
    }

    /// Waits for its end, which `stop` brings about.
    pub(super) fn end(&mut self, stop: impl FnOnce()) {
        let handle = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(handle) = handle else { return };
        if !self.is_here() {
            std::mem::forget(handle);
            return;
        }
        stop();
        // It may have been the last owner itself: then it ends without anybody who waits.
        if handle.thread().id() != current().id() {
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn it_starts_once_and_its_end_is_waited_for() {
        let (go, wait) = channel::<()>();
        let (ended, end) = channel();
        let mut thread = OwnThread::new("test");
        let first = thread.start(move || {
            let _ = wait.recv();
            ended.send(()).unwrap();
        });
        let first = first.unwrap();
        assert_eq!(first.name(), Some("test"));
        assert_eq!(thread.start(|| panic!("a second time")).unwrap().id(), first.id());
        thread.end(|| drop(go));
        assert!(end.try_recv().is_ok());
        thread.end(|| panic!("it has ended"));
    }

    #[test]
    fn the_child_of_a_fork_waits_for_nobody() {
        let mut thread = OwnThread::of_parent();
        let (_go, wait) = channel::<()>();
        thread.start(move || _ = wait.recv()).unwrap();
        assert!(!thread.is_here() && OwnThread::new("here").is_here());
        thread.end(|| panic!("a lock that nobody releases"));
    }
}
