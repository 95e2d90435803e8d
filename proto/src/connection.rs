//! How one service reaches another: over a socket, or directly where both run in the same process.

use crate::in_process::Place;
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{
    body::Body,
    codegen::{Service, StdError, http},
    transport::Channel,
};

/// A way to one service. Calls, deadlines and errors are the same by either.
#[derive(Debug, Clone)]
pub enum Connection {
    Socket(Channel),
    InProcess(Arc<Place>),
}

/// An answer on its way.
pub enum Answer {
    Socket(<Channel as Service<http::Request<Body>>>::Future),
    InProcess(Pin<Box<dyn Future<Output = Result<http::Response<Body>, StdError>> + Send>>),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

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
            Self::Socket(channel) => Answer::Socket(channel.call(request)),
            Self::InProcess(place) => {
                let place = Arc::clone(place);
                Answer::InProcess(Box::pin(async move { place.call(request).await }))
            }
        }
    }
}

impl Future for Answer {
    type Output = Result<http::Response<Body>, StdError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.get_mut() {
            Self::Socket(answer) => ready!(Pin::new(answer).poll(cx)).map_err(Into::into),
            Self::InProcess(answer) => ready!(answer.as_mut().poll(cx)),
        })
    }
}
