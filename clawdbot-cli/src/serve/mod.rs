//! `clawdbot serve`

mod config;
mod log;
mod place;
mod reload;
mod signals;

use std::io::IsTerminal;
use std::pin::pin;

use clawdbot_core::{Error, ErrorKind, ModelPool, Result, Runtime, Source};
use clawdbot_server::{App, Config, ConfigModel, serve};

use crate::args::{KeyArgs, OutputArgs, ServeArgs};
use crate::hub::source;
use crate::interrupt::Work;
use crate::output::{Failure, Outcome, note, print, print_line};
use crate::report::bytes;
use log::AccessLog;
use place::{Place, check_protection};
use reload::Reload;
use signals::stopped;

/// Threads that read requests and write answers; the runtime's compute.
const THREADS: usize = 2;

pub(crate) fn run(args: &ServeArgs) -> Result<Outcome, Failure> {
    let config = config::config(args)?;
    let place = Place::of(&config, args)?;
    check_protection(place.ip()?, &config, args)?;
    let output = output(args);
    let runtime = crate::load::runtime(&config.runtime, &output)?;
    let sources = config.models.iter().map(|model| located(&runtime, model, args, &output));
    let sources: Vec<Source> = sources.collect::<Result<_>>()?;
    if args.check {
        return check(&runtime, &config, &sources);
    }
    let pool = ModelPool::new(&runtime)?;
    for (model, source) in config.models.iter().zip(sources) {
        pool.add(&model.name, model.pooled(source))?;
    }
    let app = App::new(pool, config.settings.clone())?;
    let log = args.access_log.as_ref().map(|path| AccessLog::start(&app, path)).transpose()?;
    // While it serves, Ctrl-C ends the server rather than the process; the second one the process.
    let work = Work::begin();
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    threads.map_err(|error| system("threads", &error))?.block_on(serving(
        app,
        config,
        place,
        log.as_ref(),
        args,
    ))?;
    drop(work);
    Ok(Outcome::Done)
}

/// `clawdbot key`
pub(crate) fn key(args: &KeyArgs) -> Result<Outcome, Failure> {
    if args.name.is_empty() {
        return Err(
            Error::new(ErrorKind::InvalidArgument, "NAME: expected a name, found an empty text").into()
        );
    }
    let (key, digest) = clawdbot_server::new_key()?;
    // As a key in TOML: any text in quotes that are JSON's, too.
    let name = serde_json::Value::from(args.name.as_str());
    print(&format!("key: {key}\n\n[keys.{name}]\nsha256 = \"{digest}\"\n"))?;
    Ok(Outcome::Done)
}

fn output(args: &ServeArgs) -> OutputArgs {
    OutputArgs { quiet: args.quiet, json: false }
}

/// Where a model is; downloaded if need be.
fn located(runtime: &Runtime, model: &ConfigModel, args: &ServeArgs, output: &OutputArgs) -> Result<Source> {
    source(runtime, Some(&model.model), None, &args.hub, output)
}

/// What the models would cost: a line for each.
fn check(runtime: &Runtime, config: &Config, sources: &[Source]) -> Result<Outcome, Failure> {
    let mut all_fit = true;
    let mut pinned = 0_u64;
    for (model, source) in config.models.iter().zip(sources) {
        let plan = runtime.plan(source, &model.options)?;
        all_fit &= plan.fits;
        pinned += if model.pin { plan.load_bytes } else { 0 };
        print(&format!(
            "{}: {} to load, {} of keys and values for each of {} tokens; {}\n",
            model.name,
            bytes(plan.load_bytes),
            bytes(plan.kv_bytes_per_token),
            plan.max_context,
            if plan.fits { "it fits" } else { "it does not fit" }
        ))?;
    }
    if let Some(budget) = config.runtime.memory_budget.filter(|_| sources.len() > 1) {
        all_fit &= pinned <= budget;
        let fit = if pinned <= budget { "they fit" } else { "they do not fit" };
        print(&format!("{} for models that stay, of {}; {fit}\n", bytes(pinned), bytes(budget)))?;
    }
    Ok(if all_fit { Outcome::Done } else { Outcome::Failed })
}

async fn serving(
    app: App,
    config: Config,
    place: Place,
    log: Option<&AccessLog>,
    args: &ServeArgs,
) -> Result<(), Failure> {
    #[cfg(feature = "tls")]
    let protection =
        crate::tls::protection(&app, config.tls.as_ref(), args.tls.self_signed, place.ip()?, args.quiet)?;
    #[cfg(not(feature = "tls"))]
    if config.tls.is_some() {
        let message = "key server.tls_cert: expected a program that was built with the feature tls";
        return Err(Error::new(ErrorKind::InvalidArgument, message).with("option", "tls_cert").into());
    }
    // Without it, the signal would end the process.
    let mut hangups = signals::hangups()?;
    let names = config.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
    let (mut loading, serving) = (pin!(stopped()?), stopped()?);
    if !args.quiet && std::io::stderr().is_terminal() {
        note(format_args!("loading {names}"));
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
    let mut reload = Reload::new(&app, &config, args);
    let (mut scheme, mut curl, mut notes) = ("http", "curl".to_owned(), String::new());
    #[cfg(feature = "tls")]
    let listener = match protection {
        None => listener,
        Some(protection) => {
            reload.tls = Some(protection.tls.clone());
            (scheme, curl, notes) = ("https", protection.curl, protection.notes);
            listener.with_tls(protection.tls)
        }
    };
    if !config.settings.keys.is_empty() {
        curl.push_str(" -H 'Authorization: Bearer KEY'");
    }
    print_line(&format!("{names} at {scheme}://{address}"))?;
    if !args.quiet {
        let model = match (&config.models[..], &config.settings.default_model) {
            ([_, second, ..], None) => format!("\"model\": \"{}\", ", second.name),
            _ => String::new(),
        };
        print(&format!(
            "{notes}{curl} {scheme}://{address}/v1/generate -d '{{{model}\"prompt\": \"Once upon a time\", \"max_tokens\": 50}}'\n"
        ))?;
    }
    let served = serve(app.clone(), listener, serving);
    let reloads = async {
        loop {
            hangups().await;
            if let Some(log) = log {
                log.reopen();
            }
            reload.run();
        }
    };
    tokio::select! {
        served = served => served.map_err(|error| system("listening", &error))?,
        () = reloads => {}
    }
    Ok(())
}

fn system(what: &str, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{what}: {error}"))
}
