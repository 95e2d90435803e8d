//! Calls to the gateway with the session's token: deadlines, one renewal when the token has ended.

use super::{
    live::Keeps,
    session::{Scheme, Session},
};
use crate::{
    model::{
        Who,
        feed::{Link, Wire},
        remembered::Remembered,
    },
    msg::{Event, Outcome},
    now_us,
};
use fafnir_proto::{
    client::MESSAGE_BYTES_MAX,
    connection::Connection,
    tls,
    v1::{self, terminal_client::TerminalClient},
};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tonic::{Code, Request, Status};

/// Deadline of a question.
pub const QUERY_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of an order or a cancel.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of signing in: a password hash takes its time.
pub const SIGN_IN_DEADLINE: Duration = Duration::from_secs(10);

/// A client of the gateway.
pub type Client = TerminalClient<Connection>;

/// What all tasks of the live backend share.
pub struct Gateway {
    connection: Connection,
    pub tls: tls::Client,
    pub session: watch::Sender<Option<Session>>,
    keeps: Keeps,
    /// What the memory held of the user when this terminal last looked.
    pub known: parking_lot::Mutex<Remembered>,
    renewing: Mutex<()>,
    pub events: mpsc::Sender<Event>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

/// Why a session could not be renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The gateway refused the refresh token: only signing in helps.
    Ended,
    /// No answer: trying again may help.
    NoAnswer(String),
}

/// One sentence about a status; never empty.
pub fn sentence(status: &Status) -> String {
    let text = crate::text::clean(status.message());
    if let Some(why) = tls::sentence(status) {
        return why;
    }
    if status.code() == Code::Unavailable {
        return "the gateway does not answer".into();
    }
    if text.is_empty() { status.code().description().to_owned() } else { text.into_owned() }
}

/// A status as the outcome of a command. Only codes that say that nothing happened are refusals.
pub fn outcome<T>(status: &Status) -> Outcome<T> {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::Unimplemented => Outcome::Refused(sentence(status)),
        _ => Outcome::Unknown(sentence(status)),
    }
}

impl Gateway {
    pub fn new(
        connection: Connection,
        tls: tls::Client,
        session: Option<Session>,
        keeps: Keeps,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            connection,
            tls,
            session: watch::Sender::new(session),
            keeps,
            known: parking_lot::Mutex::default(),
            renewing: Mutex::new(()),
            events,
        }
    }

    pub fn client(&self) -> Client {
        TerminalClient::new(self.connection.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub async fn send(&self, event: Event) {
        // The receiver is gone only when the terminal is ending.
        let _ = self.events.send(event).await;
    }

    /// The token of now, if signed in.
    pub fn token(&self) -> Option<String> {
        self.session.borrow().as_ref().map(|s| s.access_token.clone())
    }

    /// A request with the token of now.
    pub fn request<T>(&self, message: T) -> Result<(Request<T>, String), Status> {
        let session =
            self.session.borrow().clone().ok_or_else(|| Status::unauthenticated("not signed in"))?;
        let mut request = Request::new(message);
        let value = session.authorization().parse();
        let value =
            value.map_err(|_| Status::unauthenticated("the stored session is damaged: sign in again"))?;
        request.metadata_mut().insert("authorization", value);
        Ok((request, session.access_token))
    }

    /// Makes one call; when the token has ended, renews it and makes the call once more.
    pub async fn call<M, R, F, Fut>(&self, deadline: Duration, message: M, method: F) -> Result<R, Status>
    where
        M: Clone,
        F: Fn(Client, Request<M>) -> Fut,
        Fut: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let mut renewed = false;
        loop {
            let (mut request, token) = self.request(message.clone())?;
            request.set_timeout(deadline);
            let answer = tokio::time::timeout(deadline, method(self.client(), request)).await;
            let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            match answer {
                Err(status) if status.code() == Code::Unauthenticated && !renewed => {
                    renewed = true;
                    match self.renew(&token).await {
                        Ok(()) => {}
                        Err(Renewal::Ended) => return Err(status),
                        Err(Renewal::NoAnswer(text)) => return Err(Status::unavailable(text)),
                    }
                }
                other => return other.map(tonic::Response::into_inner),
            }
        }
    }

    /// Renews the session unless somebody did since `seen` was its token. An ended session goes back to sign-in.
    pub async fn renew(&self, seen: &str) -> Result<(), Renewal> {
        let _one = self.renewing.lock().await;
        let Some(current) = self.session.borrow().clone() else { return Err(Renewal::Ended) };
        if current.access_token != seen {
            return Ok(());
        }
        if current.scheme == Scheme::Basic {
            return self.look_at_key(current).await;
        }
        let mut lock = match self.keeps.sessions.clone() {
            None => None,
            Some(store) => tokio::task::spawn_blocking(move || store.lock())
                .await
                .map_err(|e| Renewal::NoAnswer(e.to_string()))?
                .inspect_err(|e| tracing::warn!(error = %e, "the session store cannot be locked"))
                .ok(),
        };
        let stored = lock.as_mut().and_then(|l| l.load().ok().flatten());
        if let Some(stored) =
            stored.filter(|s| s.user_id == current.user_id && s.refresh_token != current.refresh_token)
        {
            // Another process renewed it meanwhile: its refresh token is the one that still counts.
            self.session.send_replace(Some(stored));
            return Ok(());
        }
        let message = v1::TerminalRefreshRequest { refresh_token: current.refresh_token.clone() };
        let mut request = Request::new(message);
        request.set_timeout(QUERY_DEADLINE);
        let answer = tokio::time::timeout(QUERY_DEADLINE, self.client().refresh(request)).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(reply) => {
                let session = Session::new(reply.into_inner(), now_us()).or_else(&current);
                if let Some(Err(e)) = lock.as_mut().map(|l| l.store(&session)) {
                    tracing::warn!(error = %e, "the session cannot be stored");
                }
                self.session.send_replace(Some(session));
                Ok(())
            }
            Err(status) => {
                if let Outcome::Unknown(text) = outcome::<()>(&status) {
                    return Err(Renewal::NoAnswer(text));
                }
                self.session.send_replace(None);
                let text = "the session has ended: sign in again".to_owned();
                self.send(Event::SignedOut(text)).await;
                Err(Renewal::Ended)
            }
        }
    }

    /// An API key has nothing to renew: whether it still opens, and where its market data is.
    async fn look_at_key(&self, current: Session) -> Result<(), Renewal> {
        let (mut request, token) = self.request(v1::Empty {}).map_err(|e| Renewal::NoAnswer(sentence(&e)))?;
        request.set_timeout(QUERY_DEADLINE);
        let answer = tokio::time::timeout(QUERY_DEADLINE, self.client().whoami(request)).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(reply) => {
                let session = Session::of_key(reply.into_inner(), token).or_else(&current);
                self.session.send_replace(Some(session));
                Ok(())
            }
            Err(status) if status.code() == Code::Unauthenticated => {
                self.session.send_replace(None);
                self.send(Event::SignedOut("the API key does not open any more".to_owned())).await;
                Err(Renewal::Ended)
            }
            Err(status) => Err(Renewal::NoAnswer(sentence(&status))),
        }
    }

    /// Signs in, stores the session, reports.
    pub async fn sign_in(&self, email: String, password: String) {
        let mut request = Request::new(v1::TerminalSignInRequest { email, password });
        request.set_timeout(SIGN_IN_DEADLINE);
        let answer = tokio::time::timeout(SIGN_IN_DEADLINE, self.client().sign_in(request)).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(reply) => {
                let session = Session::new(reply.into_inner(), now_us());
                let who = Who { user_id: session.user_id.clone(), email: session.email.clone() };
                self.keep(&session).await;
                self.send(Event::Link(Wire::Grpc, Link::Up, String::new())).await;
                self.session.send_replace(Some(session));
                self.recall().await;
                self.send(Event::SignedIn(who)).await;
            }
            Err(status) => self.send(Event::SignInRefused(sentence(&status))).await,
        }
    }

    /// Tells what is kept of the user's terminals.
    pub async fn recall(&self) {
        let user_id = self.session.borrow().as_ref().map(|s| s.user_id.clone());
        let (Some(memory), Some(user_id)) = (self.keeps.memory.clone(), user_id) else { return };
        let found = tokio::task::spawn_blocking(move || memory.recall(&user_id)).await;
        let found = found.ok().flatten().unwrap_or_default();
        self.known.lock().clone_from(&found);
        self.send(Event::Recalled(Box::new(found))).await;
    }

    /// Keeps how the terminal is now.
    pub async fn remember(&self, now: Remembered) {
        let user_id = self.session.borrow().as_ref().map(|s| s.user_id.clone());
        let (Some(memory), Some(user_id)) = (self.keeps.memory.clone(), user_id) else { return };
        let before = std::mem::replace(&mut *self.known.lock(), now.clone());
        let kept = tokio::task::spawn_blocking(move || memory.remember(&user_id, &before, &now)).await;
        if let Ok(Err(e)) = kept {
            tracing::warn!(error = %e, "the terminal's layout and alerts cannot be kept");
        }
    }

    async fn keep(&self, session: &Session) {
        let Some(store) = self.keeps.sessions.clone() else { return };
        let session = session.clone();
        let kept =
            tokio::task::spawn_blocking(move || store.lock().and_then(|mut lock| lock.store(&session))).await;
        if let Ok(Err(e)) = kept {
            tracing::warn!(error = %e, "the session cannot be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definite_no_is_a_refusal() {
        assert_eq!(
            outcome::<()>(&Status::failed_precondition("not enough cash")),
            Outcome::Refused("not enough cash".into())
        );
        for unknown in [
            Status::deadline_exceeded("late"),
            Status::internal("x"),
            Status::unknown("y"),
            Status::aborted("z"),
        ] {
            assert!(matches!(outcome::<()>(&unknown), Outcome::Unknown(_)), "{unknown:?}");
        }
        assert_eq!(
            outcome::<()>(&Status::unavailable("tcp connect error")),
            Outcome::Unknown("the gateway does not answer".into())
        );
    }
}
