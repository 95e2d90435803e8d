//! How one service reaches another: over a socket, or directly where both run in the same process.
//!
//! A call that a connection took with it is UNAVAILABLE, whatever HTTP/2 calls it. One that the server never took (it was
//! told to end, and said up to where it had taken calls) is sent again: it has had no effect.

use crate::{
    client::{self, TIMEOUT},
    in_process::{self, Place},
};
use http_body_util::{BodyExt as _, Full};
use std::{
    error::Error,
    future::{Future, poll_fn},
    io, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tonic::{
    ConnectError, Status, TimeoutExpired,
    body::Body,
    codegen::{Bytes, Service, StdError, http},
    transport::{self, Channel},
};

/// How often a call is sent that nobody takes.
const SENDS_MAX: u32 = 3;

/// A way to one service. Calls, deadlines and errors are the same by either.
#[derive(Debug, Clone)]
pub enum Connection {
    Socket(Channel),
    InProcess(Arc<Place>),
}

impl Connection {
    /// To a URL, made at the first call; `https://` is secured as `tls` says.
    ///
    /// # Errors
    /// It is not a URL.
    pub fn to(url: &str, tls: &fafnir_tls::Client) -> Result<Self, transport::Error> {
        client::secured_channel(url, tls).map(Self::Socket)
    }
}

/// An answer on its way.
pub type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, StdError>> + Send>>;

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Self::Socket(channel) => channel.poll_ready(cx).map_err(Into::into),
            Self::InProcess(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        match self {
            Self::Socket(channel) => {
                // The one that is ready; a clone is not yet.
                let next = channel.clone();
                Box::pin(in_time(mem::replace(channel, next), request))
            }
            Self::InProcess(place) => {
                let place = Arc::clone(place);
                Box::pin(async move { place.call(request).await })
            }
        }
    }
}

/// What became of a call whose connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// The server has not taken it, and says so, or it was never sent.
    Untaken,
    /// It may have been carried out.
    UnderWay,
}

impl Lost {
    /// `None`: the connection is not what ended the call.
    fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut at = Some(error);
        while let Some(error) = at {
            // There was none: who listens, or why not, is another question.
            if error.is::<ConnectError>() {
                return None;
            }
            if let Some(h2) = error.downcast_ref::<h2::Error>() {
                // RFC 9113, 6.8 and 8.7.
                let in_order = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
                let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
                return (h2.is_remote() && (in_order || refused)).then_some(Self::Untaken);
            }
            // It waited for its turn on a connection that had ended.
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
                return Some(Self::Untaken);
            }
            if error.is::<io::Error>() {
                return Some(Self::UnderWay);
            }
            at = error.source();
        }
        None
    }
}

/// One call over a socket, with the time that it has for all that it is sent, connecting too.
async fn in_time(channel: Channel, request: http::Request<Body>) -> Result<http::Response<Body>, StdError> {
    let Some(time) = in_process::deadline(request.headers()) else {
        return send(channel, request, None).await;
    };
    let sending = send(channel, request, Some(Instant::now() + time));
    tokio::time::timeout(time, sending).await.map_err(|_| TimeoutExpired(()))?
}

async fn send(
    mut channel: Channel,
    request: http::Request<Body>,
    until: Option<Instant>,
) -> Result<http::Response<Body>, StdError> {
    let (mut head, message) = request.into_parts();
    // One message, here at once: nothing in the contract is a stream of the caller's.
    let message: Bytes = message.collect().await?.to_bytes();
    let mut sends = 1;
    let lost = loop {
        let body = Body::new(Full::new(message.clone()));
        let error = match channel.call(http::Request::from_parts(head.clone(), body)).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match Lost::of(&error) {
            None => return Err(error.into()),
            Some(Lost::Untaken) if sends < SENDS_MAX => {
                tracing::debug!(path = head.uri.path(), %error, "a call that was not taken is sent again");
            }
            Some(_) => break error,
        }
        sends += 1;
        if let Some(until) = until {
            head.headers.insert(&TIMEOUT, client::as_header(until.saturating_duration_since(Instant::now())));
        }
        poll_fn(|cx| channel.poll_ready(cx)).await?;
    };
    let mut status = Status::unavailable("the connection ended before the answer");
    status.set_source(Arc::new(lost));
    Err(status.into())
}
