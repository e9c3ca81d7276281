//! `clawdbot serve`

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr, TcpListener as Socket};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use clawdbot_core::{Driver, Error, ErrorKind, ModelPool, PoolModel, Result};
use clawdbot_server::{App, FieldPolicy, Listener, Settings, serve};

use crate::args::{OutputArgs, ServeArgs};
use crate::generate::read;
use crate::hub::source;
use crate::interrupt::Work;
use crate::output::{Failure, Outcome, note, print, print_line};
use crate::report::bytes;

/// Threads that read requests and write answers; the runtime's compute.
const THREADS: usize = 2;

pub(crate) fn run(args: &ServeArgs) -> Result<Outcome, Failure> {
    let place = Place::of(args)?;
    check_protection(place.ip()?, args)?;
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
    settings.idle_timeout = Duration::from_secs(args.idle_timeout);
    let pool = ModelPool::new(&runtime)?;
    pool.add(&name, PoolModel::new(source, options).pin(true))?;
    let app = App::new(pool, settings)?;
    // While it serves, Ctrl-C ends the server rather than the process; the second one the process.
    let work = Work::begin();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    threads.map_err(|error| system("threads", &error))?.block_on(serving(app, &name, place, args))?;
    drop(work);
    Ok(Outcome::Done)
}

/// The name of a model for clients.
fn name_of(model: Option<&Path>) -> String {
    let stem = model.and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    stem.unwrap_or_else(|| "builtin".to_owned())
}

/// Where to listen.
enum Place {
    Address(SocketAddr),
    /// An address that other servers have, too.
    #[cfg(unix)]
    Shared(SocketAddr),
    /// A socket that was open before.
    #[cfg(unix)]
    Open(Socket),
}

impl Place {
    fn of(args: &ServeArgs) -> Result<Self> {
        let address = SocketAddr::new(args.host, args.port);
        #[cfg(unix)]
        if args.listen_fd {
            return passed().map(Place::Open);
        }
        #[cfg(unix)]
        if args.reuse_port {
            return Ok(Place::Shared(address));
        }
        Ok(Place::Address(address))
    }

    fn ip(&self) -> Result<IpAddr> {
        match self {
            Place::Address(address) => Ok(address.ip()),
            #[cfg(unix)]
            Place::Shared(address) => Ok(address.ip()),
            #[cfg(unix)]
            Place::Open(socket) => {
                socket.local_addr().map(|address| address.ip()).map_err(|error| system("address", &error))
            }
        }
    }

    /// Whether clients that connect would wait for the model, although another server has it.
    fn waits_for_model(&self) -> bool {
        match self {
            Place::Address(_) => false,
            #[cfg(unix)]
            Place::Shared(_) => true,
            #[cfg(unix)]
            Place::Open(_) => false,
        }
    }

    async fn listen(self) -> Result<Listener> {
        let at = |address: SocketAddr| move |error| system(&format!("address {address}"), &error);
        match self {
            Place::Address(address) => Listener::bind(address).await.map_err(at(address)),
            #[cfg(unix)]
            Place::Shared(address) => Listener::shared(address).map_err(at(address)),
            #[cfg(unix)]
            Place::Open(socket) => Listener::lent(socket).map_err(|error| system("passed socket", &error)),
        }
    }
}

/// The socket that the service manager passes.
#[cfg(unix)]
fn passed() -> Result<Socket> {
    let mut sockets = listenfd::ListenFd::from_env();
    let wrong = |found: &dyn std::fmt::Display| {
        let message = format!("option listen_fd: expected one TCP socket in LISTEN_FDS, found {found}");
        Error::new(ErrorKind::InvalidArgument, message).with("option", "listen_fd")
    };
    match (sockets.len(), sockets.take_tcp_listener(0)) {
        (1, Ok(Some(socket))) => Ok(socket),
        (1, Err(error)) => Err(wrong(&error)),
        (count, _) => Err(wrong(&count)),
    }
}

/// Refuses an address that other machines reach unless they are kept from using the model and from reading what others send.
fn check_protection(ip: IpAddr, args: &ServeArgs) -> Result<()> {
    // A certificate of the client is as good as a key.
    #[cfg(feature = "tls")]
    let (encrypted, authenticated) = (args.tls.is_on(), args.tls.client_ca.is_some());
    #[cfg(not(feature = "tls"))]
    let (encrypted, authenticated) = (false, false);
    match lack(encrypted, authenticated) {
        Some(lack) if !ip.is_loopback() && !args.insecure => {
            let message = format!(
                "option host: expected an address of this machine alone, such as 127.0.0.1, found {ip}; with --insecure, others \
                 are served too, {lack}"
            );
            Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "host"))
        }
        _ => Ok(()),
    }
}

/// What a server lacks that others reach.
fn lack(encrypted: bool, authenticated: bool) -> Option<&'static str> {
    match (encrypted, authenticated) {
        (true, true) => None,
        (true, false) => Some("and anyone may use the model"),
        (false, true) => Some("without encryption"),
        (false, false) => Some("without encryption and to anyone"),
    }
}

async fn serving(app: App, name: &str, place: Place, args: &ServeArgs) -> Result<(), Failure> {
    #[cfg(feature = "tls")]
    let protection = crate::tls::protection(&app, &args.tls, place.ip()?, args.quiet)?;
    let (mut loading, serving) = (pin!(stopped()?), stopped()?);
    if !args.quiet && std::io::stderr().is_terminal() {
        note(format_args!("loading {name}"));
    }
    let warm_up = async {
        tokio::select! {
            warm = app.warm_up() => warm,
            () = &mut loading => Err(Error::new(ErrorKind::Cancelled, "stopped while loading")),
        }
    };
    // An address that is taken is an error before the model is loaded.
    let listener = if place.waits_for_model() {
        warm_up.await?;
        place.listen().await?
    } else {
        let listener = place.listen().await?;
        warm_up.await?;
        listener
    };
    let address = listener.local_addr().map_err(|error| system("address", &error))?;
    let (mut scheme, mut curl, mut notes) = ("http", "curl".to_owned(), String::new());
    #[cfg(feature = "tls")]
    let listener = match protection {
        None => listener,
        Some(protection) => {
            (scheme, curl, notes) = ("https", protection.curl, protection.notes);
            listener.with_tls(protection.tls)
        }
    };
    print_line(&format!("{name} at {scheme}://{address}"))?;
    if !args.quiet {
        print(&format!(
            "{notes}{curl} {scheme}://{address}/v1/generate -d '{{\"prompt\": \"Once upon a time\", \"max_tokens\": 50}}'\n"
        ))?;
    }
    serve(app, listener, serving).await.map_err(|error| system("listening", &error))?;
    Ok(())
}

/// Is ready when the process is asked to end: by Ctrl-C, or with SIGTERM.
#[cfg(unix)]
fn stopped() -> Result<impl Future<Output = ()>> {
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
fn stopped() -> Result<impl Future<Output = ()>> {
    Ok(async {
        // Where that cannot be known, only the process itself can be ended.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn system(what: &str, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{what}: {error}"))
}
