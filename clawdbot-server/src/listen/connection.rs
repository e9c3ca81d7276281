//! One connection: its handshake, its requests, and its end.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse as _;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::activity::Activity;
use super::socket::Listener;
use crate::app::App;
use crate::router::router;
use crate::settings::Settings;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// Most bytes of the head of a request.
const MAX_HEAD: usize = 64 << 10;
/// How long a client has to take notice that its connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Clone)]
pub(super) struct Server {
    app: App,
    service: TowerToHyperService<Router>,
    builder: Builder<TokioExecutor>,
    /// Whether the server ends.
    ending: watch::Receiver<bool>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

/// A connection, as long as it is open.
struct Open(App);

impl Open {
    fn new(app: &App) -> Self {
        app.counters().connections.up();
        app.counters().connections_open.up();
        Open(app.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters().connections_open.down();
    }
}

impl Server {
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "only TLS is the listener's"))]
    pub(super) fn new(app: &App, listener: &Listener, ending: watch::Receiver<bool>) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // It would also end connections that wait for their next request; `Wait` has a time for each.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD)
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(app.settings().keep_alive);
        Server {
            app: app.clone(),
            service: TowerToHyperService::new(router(app.clone())),
            builder,
            ending,
            #[cfg(feature = "tls")]
            tls: listener.tls.clone(),
        }
    }

    /// Serves a connection to its end. `place` is kept as long.
    pub(super) async fn serve<P>(self, stream: TcpStream, _place: P) {
        let _open = Open::new(&self.app);
        // Tokens are small, and each is to arrive at once. Without this it still works.
        let _ = stream.set_nodelay(true);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let stream = tokio::select! {
                stream = tls.accept(stream) => stream,
                () = self.lingered() => None,
            };
            if let Some(stream) = stream {
                self.talk(stream).await;
            }
            return;
        }
        self.talk(stream).await;
    }

    /// Is ready when the server has been ending for a while.
    #[cfg(feature = "tls")]
    async fn lingered(&self) {
        let mut ending = self.ending.clone();
        ended(&mut ending).await;
        tokio::time::sleep(self.app.settings().linger).await;
    }

    /// Answers the requests that come over `stream`.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let activity = Activity::default();
        let service = service_fn(|request| self.answer(&activity, request));
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let settings = self.app.settings();
        let mut wait = Wait::begin(&settings);
        let mut ending = self.ending.clone();
        loop {
            tokio::select! {
                // Errors of a connection are its client's.
                _ = connection.as_mut() => return,
                () = activity.changed() => wait.changed(&activity),
                () = ended(&mut ending), if !wait.is_last => wait.end(),
                () = sleep_until(wait.until), if !activity.is_running() => break,
            }
            if wait.is_last && activity.is_running() {
                break;
            }
        }
        connection.as_mut().graceful_shutdown();
        if wait.is_last {
            // Nothing has come, or not all of a head.
            if activity.has_begun() {
                let _ = connection.await;
            }
            return;
        }
        // Requests that came at this moment are answered; who does not take notice is not waited for.
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = activity.changed() => {}
                () = tokio::time::sleep(FAREWELL), if !activity.is_running() => return,
            }
        }
    }

    /// Answers a request. The last one of a connection says so.
    fn answer(
        &self,
        activity: &Activity,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
        let running = activity.begin();
        let http1 = request.version() <= Version::HTTP_11;
        let ending = self.ending.clone();
        let answer = self.service.call(request);
        async move {
            let mut response = match answer.await {
                Ok(response) => response,
                Err(never) => never.into_response(),
            };
            if http1 && *ending.borrow() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| running.until_end_of(body)))
        }
    }
}

/// How long a connection waits for its next request.
struct Wait<'a> {
    settings: &'a Settings,
    until: Instant,
    /// Whether its next request is its last one.
    is_last: bool,
}

impl<'a> Wait<'a> {
    /// For the first request.
    fn begin(settings: &'a Settings) -> Self {
        Wait { settings, until: after(settings.header_timeout), is_last: false }
    }

    /// A request has begun or ended.
    fn changed(&mut self, activity: &Activity) {
        if !activity.is_running() {
            self.until = after(self.settings.idle_timeout);
        }
    }

    /// The server ends.
    fn end(&mut self) {
        self.is_last = true;
        self.until = self.until.min(after(self.settings.linger));
    }
}

/// A time from now on; a day stands for what is too far away.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now + Duration::from_secs(86_400))
}

/// Is ready when the server ends.
async fn ended(ending: &mut watch::Receiver<bool>) {
    // Without a sender there is no server.
    let _ = ending.wait_for(|ending| *ending).await;
}
