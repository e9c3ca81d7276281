//! Several models under names.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::time::Duration;

use clawdbot_core::{ModelOptions, ModelPool, PoolModel, Result};

use crate::cancel::{clawdbot_cancel_handle, handle};
use crate::error::clawdbot_error;
use crate::guard::guard;
use crate::handle::{CLAWDBOT_NUL_TERMINATED, array, give, quietly, required, text};
use crate::model::clawdbot_model;
use crate::options::{clawdbot_options, read};
use crate::runtime::{clawdbot_runtime, source, to_json};
use crate::string::clawdbot_string;

/// Named models of one runtime. Each is loaded when it is first asked for; one that does not fit into the runtime's budget
/// takes the place of those that were used longest ago and that nobody uses now.
pub struct clawdbot_pool(ModelPool);

/// # Safety
/// `name` is NULL or ends with a NUL, and stays so for `'a`.
unsafe fn name_of<'a>(name: *const c_char) -> Result<&'a str> {
    // SAFETY: by the clause above, `name` is NULL or ends with a NUL.
    unsafe { text(name, CLAWDBOT_NUL_TERMINATED, "name") }
}

/// A new pool without models. The runtime's handle may be freed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_pool_new(
    runtime: Option<&clawdbot_runtime>,
    out: Option<&mut MaybeUninit<*mut clawdbot_pool>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (runtime, out) = (required(runtime, "runtime")?, required(out, "out")?);
        give(out, clawdbot_pool(ModelPool::new(&runtime.0)?));
        Ok(())
    })
}

/// Adds a model, which is loaded when it is first asked for. `path` and `options` as of `clawdbot_model_load`.
///
/// `pin`: not 0 if it stays once it is loaded, whatever others need and however long nobody uses it.
/// `idle_unload`: seconds without a user after which it is unloaded; 0 for never. With the option `driver` `caller` that happens
/// at the next `get`.
/// `instances`: options of `count` further instances, which share the weights and have limits of their own; NULL with 0.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_pool_add(
    pool: Option<&clawdbot_pool>,
    name: *const c_char,
    path: *const c_char,
    options: Option<&clawdbot_options>,
    pin: i32,
    idle_unload: u64,
    instances: *const *const clawdbot_options,
    count: usize,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let pool = required(pool, "pool")?;
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        let name = unsafe { name_of(name) }?;
        // SAFETY: by the header, `path` is NULL or ends with a NUL.
        let source = unsafe { source(path) }?;
        let idle_unload = (idle_unload > 0).then(|| Duration::from_secs(idle_unload));
        let mut model = PoolModel::new(source, read(options, ModelOptions::from_json)?)
            .pin(pin != 0)
            .idle_unload(idle_unload);
        // SAFETY: by the header, `instances` is NULL or readable for `count` items.
        for &instance in unsafe { array(instances, count, "instances") }? {
            // SAFETY: by the header, each is NULL or a handle that is not yet freed.
            let options = unsafe { instance.as_ref() };
            model = model.instance(read(options, ModelOptions::from_json)?);
        }
        pool.0.add(name, model)
    })
}

/// A model, loaded if it is not: of its instances the one that has the fewest users. It stays loaded until the handle, and what
/// was made with it, is freed; `clawdbot_model_close` gives the handle up and cancels nothing.
///
/// One that does not fit into the budget waits up to `timeout_ms` milliseconds until enough of the others are idle, then fails with
/// `CLAWDBOT_ERROR_OUT_OF_BUDGET`; if the loads of others took all that time, with `CLAWDBOT_ERROR_OVERLOADED`. `cancel`, which may
/// be NULL, stops it.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_pool_get(
    pool: Option<&clawdbot_pool>,
    name: *const c_char,
    timeout_ms: u64,
    cancel: Option<&clawdbot_cancel_handle>,
    out: Option<&mut MaybeUninit<*mut clawdbot_model>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (pool, out) = (required(pool, "pool")?, required(out, "out")?);
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        let name = unsafe { name_of(name) }?;
        let wait = Duration::from_millis(timeout_ms);
        give(out, clawdbot_model(pool.0.get_until(name, wait, &handle(cancel))?));
        Ok(())
    })
}

/// Unloads a model that nobody uses, be it pinned. `unloaded`, which may be NULL, gets 1 if it is not loaded now, otherwise 0.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_pool_unload(
    pool: Option<&clawdbot_pool>,
    name: *const c_char,
    unloaded: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let pool = required(pool, "pool")?;
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        let gone = pool.0.unload(unsafe { name_of(name) }?)?;
        unloaded.map(|unloaded| unloaded.write(gone.into()));
        Ok(())
    })
}

/// Forgets a model. Who uses it goes on, and its memory is freed with the last user.
///
/// # Safety
/// As the head of the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clawdbot_pool_remove(
    pool: Option<&clawdbot_pool>,
    name: *const c_char,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let pool = required(pool, "pool")?;
        // SAFETY: by the header, `name` is NULL or ends with a NUL.
        pool.0.remove(unsafe { name_of(name) }?)
    })
}

/// All models by name, a JSON array of objects: name, state (unloaded, loading, loaded), pin, bytes, users (of each instance),
/// idle_seconds.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_pool_status_json(
    pool: Option<&clawdbot_pool>,
    out: Option<&mut MaybeUninit<*mut clawdbot_string>>,
    error: Option<&mut MaybeUninit<*mut clawdbot_error>>,
) -> i32 {
    guard(error, || {
        let (pool, out) = (required(pool, "pool")?, required(out, "out")?);
        give(out, clawdbot_string::new(to_json(&pool.0.status())?));
        Ok(())
    })
}

/// Frees a pool. Models that it gave stay as long as they are used. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn clawdbot_pool_free(pool: Option<Box<clawdbot_pool>>) {
    quietly(|| drop(pool));
}
