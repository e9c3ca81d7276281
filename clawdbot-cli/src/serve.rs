//! `clawdbot serve`

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use clawdbot_core::{Driver, Error, ErrorKind, ModelPool, PoolModel, Result};
use clawdbot_server::{App, FieldPolicy, Settings, serve};
use tokio::net::TcpListener;

use crate::args::{OutputArgs, ServeArgs};
use crate::generate::read;
use crate::hub::source;
use crate::interrupt::Work;
use crate::output::{Failure, Outcome, note, print, print_line};
use crate::report::bytes;

/// Threads that read requests and write answers; the runtime's compute.
const THREADS: usize = 2;

pub(crate) fn run(args: &ServeArgs) -> Result<Outcome, Failure> {
    let address = SocketAddr::new(args.host, args.port);
    if !args.host.is_loopback() && !args.insecure {
        let message = format!(
            "option host: expected an address of this machine alone, such as 127.0.0.1, found {}; with --insecure, others are \
             served too, without encryption and to anyone",
            args.host
        );
        return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "host").into());
    }
    let output = OutputArgs { quiet: args.quiet, json: false };
    let template = args.chat_template.as_deref().map(read).transpose()?;
    let options = args.load.options()?.chat_template(template);
    let runtime = args.runtime.runtime_with(&output, |options| options.driver(Driver::Thread))?;
    let source = source(&runtime, args.model(), None, &args.hub, &output)?;
    let name = args.name.clone().unwrap_or_else(|| name_of(args.model().map(|path| path.as_path())));
    if args.check {
        let plan = runtime.plan(&source, &options)?;
        print(&format!(
            "{name}: {} to load, {} of keys and values for each of {} tokens; {}\n",
            bytes(plan.load_bytes),
            bytes(plan.kv_bytes_per_token),
            plan.max_context,
            if plan.fits { "it fits" } else { "it does not fit" }
        ))?;
        return Ok(if plan.fits { Outcome::Done } else { Outcome::Failed });
    }
    let mut settings = Settings::default();
    settings.fields = match (args.strict, args.lenient) {
        (true, _) => FieldPolicy::Strict,
        (_, true) => FieldPolicy::Lenient,
        _ => FieldPolicy::Known,
    };
    settings.max_waiting = options.max_queue.map(u64::from);
    settings.drain_timeout = Duration::from_secs(args.drain_timeout);
    let pool = ModelPool::new(&runtime)?;
    pool.add(&name, PoolModel::new(source, options).pin(true))?;
    let app = App::new(pool, settings)?;
    // While it serves, Ctrl-C ends the server rather than the process; the second one the process.
    let work = Work::begin();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    threads.map_err(|error| system("threads", &error))?.block_on(serving(app, &name, address, args))?;
    drop(work);
    Ok(Outcome::Done)
}

/// The name of a model for clients.
fn name_of(model: Option<&Path>) -> String {
    let stem = model.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_else(|| "builtin".to_owned())
}

async fn serving(app: App, name: &str, address: SocketAddr, args: &ServeArgs) -> Result<(), Failure> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| system(&format!("address {address}"), &error))?;
    let address = listener.local_addr().map_err(|error| system("address", &error))?;
    let (mut loading, serving) = (pin!(stopped()?), stopped()?);
    if !args.quiet && std::io::stderr().is_terminal() {
        note(format_args!("loading {name}"));
    }
    tokio::select! {
        warm = app.warm_up() => warm?,
        () = &mut loading => return Err(Error::new(ErrorKind::Cancelled, "stopped while loading").into()),
    }
    print_line(&format!("{name} at http://{address}"))?;
    if !args.quiet {
        print_line(&format!(
            "curl http://{address}/v1/generate -d '{{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}}'"
        ))?;
    }
    serve(app, listener, serving).await.map_err(|error| system("listening", &error))?;
    Ok(())
}

/// Is ready when the process is asked to end: by Ctrl-C, or with SIGTERM.
#[cfg(unix)]
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| system("SIGINT", &error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| system("SIGTERM", &error))?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Is ready when the process is asked to end, by Ctrl-C.
#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        // Where that cannot be known, only the process itself can be ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn system(what: &str, error: &std::io::Error) -> Failure {
    Error::new(ErrorKind::Io, format!("{what}: {error}")).into()
}
