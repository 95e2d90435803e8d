//! Subscriptions over WebSocket: the protocol graphql-transport-ws.

use super::{
    graphql::{
        error, lexical,
        transport::{Charge, Endpoint, Sent, Unready, was_executed},
        write_response,
    },
    key,
    session::{Session, Watch},
    sockets::Counted,
};
use async_graphql::parser::types::OperationType;
use axum::{
    extract::{
        State,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    http::{Extensions, HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use fafnir_platform::{
    Refusal, csrf,
    envelope::Failure,
    http::{address::Source, place::Place},
};
use fafnir_proto::{id::UserId, reason::Reason};
use futures::{StreamExt as _, stream::AbortHandle};
use serde::Deserialize;
use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time};
use tonic::{Code, Status};

const PROTOCOL: &str = "graphql-transport-ws";
/// Bytes of one message of a client.
const MESSAGE_MAX: usize = 64 * 1024;
/// Bytes in which a message comes, whatever frames it is cut into, with what is read ahead of the next ones.
const FRAMES_MAX: u64 = 512 * 1024;
/// A client must say `connection_init` within this time.
const INIT_DEADLINE: Duration = Duration::from_secs(5);
/// Subscriptions of one connection.
const SUBSCRIPTIONS_MAX: usize = 32;
/// Longest id of a subscription.
const ID_LEN_MAX: usize = 128;
/// Answers that wait for a slow client, over all subscriptions of a connection.
const BUFFER: usize = 64;
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A client that has not said anything for this long is gone.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// A connection goes on for so long after a service was away from the start.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Longest that one message may take to be written.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

const BAD_REQUEST: u16 = 4400;
/// A client that says nothing of who it is.
const UNAUTHORIZED: u16 = 4401;
/// Who it says it is, it is not or no longer: client libraries ask for another token and come again.
const FORBIDDEN: u16 = 4403;
const INIT_TIMEOUT: u16 = 4408;
const SUBSCRIBER_EXISTS: u16 = 4409;
const TOO_MANY_INIT: u16 = 4429;
const GOING_AWAY: u16 = 1001;
/// Client libraries come again.
const TRY_AGAIN_LATER: u16 = 1013;

#[derive(Deserialize)]
struct Incoming {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    payload: Option<serde_json::Value>,
}

/// `GET /graphql/ws`.
pub async fn upgrade(
    State(endpoint): State<Endpoint>,
    headers: HeaderMap,
    extensions: Extensions,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return Failure::new(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket").into_response();
    };
    // A page of another origin must not use the browser's cookie.
    if !csrf::origin_is_ours(&headers, &endpoint.gateway.ctx.settings.gateway.cors_origins) {
        return Failure::unauthorized("this page may not subscribe from its origin").into_response();
    }
    let from = endpoint.gateway.client(&headers, &extensions).ip;
    let source = Source::of(from);
    let Some(of_address) = endpoint.gateway.sockets.of_address(source) else {
        let max = endpoint.gateway.ctx.settings.gateway.sockets_per_address;
        let text = format!("an address has at most {max} connections for subscriptions");
        return Failure::from(Refusal::exhausted(Reason::TOO_MANY_SOCKETS, text)).into_response();
    };
    // The connection holds its place at the door for as long as it lives.
    let held = Held {
        _place: extensions.get::<Arc<Place>>().map(|place| (Arc::clone(place), place.busy())),
        _of_address: of_address,
    };
    let session = match endpoint.gateway.sessions.given(&headers, from).await {
        Ok(session) => session,
        Err(status) => return Failure::from(status).into_response(),
    };
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(MESSAGE_MAX).max_frame_size(MESSAGE_MAX);
    let tasks = endpoint.gateway.ctx.tasks.clone();
    let place = extensions.get::<Arc<Place>>().cloned();
    upgrade.on_upgrade(move |socket| async move {
        tasks.spawn("websocket", async move {
            Connection::serve(endpoint, socket, session, from, place).await;
            drop(held);
            Ok::<(), std::convert::Infallible>(())
        });
    })
}

/// What a connection takes up while it lives.
struct Held {
    _place: Option<(Arc<Place>, fafnir_platform::http::place::Busy)>,
    _of_address: Counted<Source>,
}

/// What a subscription hands to the connection that writes.
enum Outgoing {
    Next {
        id: String,
        payload: String,
    },
    /// Ended by itself.
    Complete {
        id: String,
    },
    /// Refused before it began.
    Error {
        id: String,
        payload: String,
    },
    /// It ended for a reason that is the whole connection's.
    Close(Close),
}

/// The connection must end with this code.
#[derive(Debug, Clone, Copy)]
struct Close(u16, &'static str);

const SESSION_ENDED: Close = Close(FORBIDDEN, "your session has ended; sign in again");
const UNAVAILABLE: Close = Close(TRY_AGAIN_LATER, "a service cannot answer just now; connect again");

impl From<Status> for Close {
    /// Why nobody can say that a session lives.
    fn from(status: Status) -> Self {
        if status.code() == Code::Unavailable { UNAVAILABLE } else { SESSION_ENDED }
    }
}

/// What the end of a stream means for its connection: a session that has ended, or a service that is away. A stream that
/// was completed or refused would not be asked for again; a connection is.
fn closes(response: &async_graphql::Response) -> Option<Close> {
    let code = |e: &async_graphql::ServerError| e.extensions.as_ref()?.get("code").cloned();
    let is = |wanted: Code| {
        let wanted = async_graphql::Value::from(error::code_name(wanted));
        response.errors.iter().any(|e| code(e).as_ref() == Some(&wanted))
    };
    if is(Code::Unauthenticated) {
        return Some(SESSION_ENDED);
    }
    is(Code::Unavailable).then_some(UNAVAILABLE)
}

struct Connection {
    endpoint: Endpoint,
    session: Option<Session>,
    from: IpAddr,
    is_init: bool,
    running: HashMap<String, AbortHandle>,
    sender: mpsc::Sender<Outgoing>,
    of_user: Option<Counted<UserId>>,
    /// Looks at the session, once somebody is signed in.
    watch: Option<Watch>,
    place: Option<Arc<Place>>,
}

/// Resolves when the session has ended; never before somebody is signed in.
async fn ended(watch: &mut Option<Watch>) -> Status {
    match watch {
        Some(watch) => watch.ended().await,
        None => std::future::pending().await,
    }
}

impl Connection {
    async fn serve(
        endpoint: Endpoint,
        mut socket: WebSocket,
        session: Option<Session>,
        from: IpAddr,
        place: Option<Arc<Place>>,
    ) {
        let shutdown = endpoint.gateway.ctx.tasks.shutdown().clone();
        let (sender, mut outgoing) = mpsc::channel(BUFFER);
        let mut this = Self {
            endpoint,
            session,
            from,
            is_init: false,
            running: HashMap::new(),
            sender,
            of_user: None,
            watch: None,
            place,
        };
        this.expects_a_message();
        let init_deadline = time::sleep(INIT_DEADLINE);
        tokio::pin!(init_deadline);
        let mut ping = time::interval_at(time::Instant::now() + PING_INTERVAL, PING_INTERVAL);
        let mut heard = time::Instant::now();
        let close = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Some(Close(GOING_AWAY, "the server stops")),
                () = &mut init_deadline, if !this.is_init => {
                    break Some(Close(INIT_TIMEOUT, "Connection initialisation timeout"));
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX || !write(&mut socket, Message::Ping(Vec::new().into())).await {
                        break None;
                    }
                }
                status = ended(&mut this.watch) => break Some(status.into()),
                Some(out) = outgoing.recv() => {
                    if let Outgoing::Close(close) = out {
                        break Some(close);
                    }
                    let text = this.text_of(out);
                    if let Some(text) = text && !write(&mut socket, Message::Text(text.into())).await {
                        break None;
                    }
                }
                message = socket.recv() => {
                    heard = time::Instant::now();
                    if let Err(close) = this.take(&mut socket, message).await {
                        break close;
                    }
                }
            }
        };
        for subscription in this.running.values() {
            subscription.abort();
        }
        if let Some(Close(code, reason)) = close {
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            write(&mut socket, Message::Close(Some(frame))).await;
        }
    }

    /// Bounds what comes before the next message is whole: frames without end, or empty ones, are no message.
    fn expects_a_message(&self) {
        if let Some(place) = &self.place {
            place.allow(FRAMES_MAX);
        }
    }

    /// Handles what came; `Err`: the connection ends, with a word or without.
    async fn take(
        &mut self,
        socket: &mut WebSocket,
        message: Option<Result<Message, axum::Error>>,
    ) -> Result<(), Option<Close>> {
        self.expects_a_message();
        // Who sends without a pause has others wait no longer than its share.
        tokio::task::consume_budget().await;
        match message {
            None | Some(Err(_) | Ok(Message::Close(_))) => Err(None),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => Err(Some(Close(BAD_REQUEST, "Invalid message received"))),
            Some(Ok(Message::Text(text))) => {
                let Some(answer) = self.receive(&text).await? else { return Ok(()) };
                if write(socket, Message::Text(answer.into())).await { Ok(()) } else { Err(None) }
            }
        }
    }

    /// Handles a message of the client; answers what is to be said at once.
    async fn receive(&mut self, text: &str) -> Result<Option<String>, Close> {
        lexical::check(text).map_err(|_| Close(BAD_REQUEST, "Invalid message received"))?;
        let message: Incoming =
            serde_json::from_str(text).map_err(|_| Close(BAD_REQUEST, "Invalid message received"))?;
        match message.kind.as_str() {
            "connection_init" => {
                if self.is_init {
                    return Err(Close(TOO_MANY_INIT, "Too many initialisation requests"));
                }
                self.sign_in(message.payload.as_ref()).await?;
                self.is_init = true;
                Ok(Some("{\"type\":\"connection_ack\"}".to_owned()))
            }
            "ping" => Ok(Some("{\"type\":\"pong\"}".to_owned())),
            "pong" => Ok(None),
            "subscribe" => {
                let session = match &self.session {
                    Some(session) if self.is_init => session.clone(),
                    _ => return Err(Close(UNAUTHORIZED, "Unauthorized")),
                };
                self.endpoint.gateway.sessions.check(&session).await?;
                let (Some(id), Some(payload)) = (message.id, message.payload) else {
                    return Err(Close(BAD_REQUEST, "Invalid message received"));
                };
                if id.is_empty() || id.len() > ID_LEN_MAX {
                    return Err(Close(BAD_REQUEST, "Invalid message received"));
                }
                if self.running.contains_key(&id) {
                    return Err(Close(SUBSCRIBER_EXISTS, "Subscriber already exists"));
                }
                let sent: Sent = serde_json::from_value(payload)
                    .map_err(|_| Close(BAD_REQUEST, "Invalid message received"))?;
                Ok(self.subscribe(id, session, sent).await)
            }
            "complete" => {
                if let Some(subscription) = message.id.and_then(|id| self.running.remove(&id)) {
                    subscription.abort();
                }
                Ok(None)
            }
            _ => Err(Close(BAD_REQUEST, "Invalid message received")),
        }
    }

    /// Who connects: the headers said it, or the payload does, by the same names: `{"Authorization": "Bearer …"}`, or a
    /// key's two halves.
    async fn sign_in(&mut self, payload: Option<&serde_json::Value>) -> Result<(), Close> {
        const UNAUTHORISED: Close = Close(UNAUTHORIZED, "Unauthorized");
        let mut headers = HeaderMap::new();
        for (name, value) in payload.and_then(|p| p.as_object()).into_iter().flatten() {
            let name = name.to_ascii_lowercase();
            let named =
                [header::AUTHORIZATION, key::ID_HEADER, key::SECRET_HEADER].into_iter().find(|n| *n == *name);
            if let (Some(name), Some(text)) = (named, value.as_str()) {
                headers.insert(name, text.parse().map_err(|_| UNAUTHORISED)?);
            }
        }
        if !headers.is_empty() {
            let given = self.endpoint.gateway.sessions.given(&headers, self.from).await?;
            self.session = Some(given.ok_or(UNAUTHORISED)?);
        }
        let Some(session) = &self.session else { return Err(Close(UNAUTHORIZED, "Unauthorized")) };
        let of_user = self.endpoint.gateway.sockets.of_user(session.user);
        let too_many = Close(TRY_AGAIN_LATER, "a user has no more connections for subscriptions");
        self.of_user = Some(of_user.ok_or(too_many)?);
        self.watch = Some(Watch::new(&self.endpoint.gateway, session, Vec::new()));
        Ok(())
    }

    /// Starts a subscription; answers an `error` message when it is refused.
    async fn subscribe(&mut self, id: String, session: Session, sent: Sent) -> Option<String> {
        let refuse = |response: &async_graphql::Response| {
            let errors = serde_json::to_string(&response.errors).unwrap_or_else(|_| "[]".to_owned());
            Some(message("error", &id, &errors))
        };
        let refuse_as = |error: async_graphql::Error| {
            let error = error.into_server_error(async_graphql::Pos::default());
            refuse(&async_graphql::Response::from_errors(vec![error]))
        };
        let refuse_charge = |charge: Charge| refuse_as(error::refused(charge.refusal()));
        if self.running.len() >= SUBSCRIPTIONS_MAX {
            let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return refuse_as(error::refused(Refusal::exhausted(Reason::TOO_MANY_SUBSCRIPTIONS, text)));
        }
        let prepared = match self.endpoint.prepare(&session, sent) {
            Ok(prepared) => prepared,
            Err(Unready::Invalid(invalid)) => return refuse(&invalid.response()),
            Err(Unready::Charge(charge)) => {
                return refuse_charge(self.endpoint.hold_back(charge, self.place.as_ref()).await);
            }
        };
        if prepared.shape.kind != OperationType::Subscription {
            let text = "queries and mutations are served on /graphql";
            return refuse_as(error::invalid(Reason::NOT_A_SUBSCRIPTION, text));
        }
        if let Err(charge) = self.endpoint.charge(&session, &prepared) {
            return refuse_charge(self.endpoint.hold_back(charge, self.place.as_ref()).await);
        }
        let mut answers = self.endpoint.api.execute_stream(prepared.request.data(session));
        let sender = self.sender.clone();
        let tasks = &self.endpoint.gateway.ctx.tasks;
        let stop = tasks.shutdown().clone();
        let (abort, registration) = AbortHandle::new_pair();
        self.running.insert(id.clone(), abort);
        let forward = async move {
            let mut is_first = true;
            while let Some(mut response) = answers.next().await {
                let was_executed = was_executed(&response);
                for error in &mut response.errors {
                    error::finish(error, was_executed);
                }
                if let Some(close) = closes(&response) {
                    if is_first {
                        // Whoever comes again at once comes at this pace.
                        time::sleep(REFUSED_PAUSE).await;
                    }
                    drop(sender.send(Outgoing::Close(close)).await);
                    return;
                }
                if is_first && !was_executed {
                    let payload = serde_json::to_string(&response.errors).unwrap_or_else(|_| "[]".to_owned());
                    drop(sender.send(Outgoing::Error { id, payload }).await);
                    return;
                }
                is_first = false;
                let payload = write_response(&response).text();
                if sender.send(Outgoing::Next { id: id.clone(), payload }).await.is_err() {
                    return;
                }
            }
            // What ends because the server stops is not complete: the close frame has the client come again.
            if !stop.is_cancelled() {
                drop(sender.send(Outgoing::Complete { id }).await);
            }
        };
        tasks.spawn_until_shutdown("subscription", async move {
            // Aborted when the client completes it or leaves.
            let _aborted = futures::future::Abortable::new(forward, registration).await;
            Ok::<(), std::convert::Infallible>(())
        });
        None
    }

    /// What is written for an answer; nothing when its subscription was completed meanwhile.
    fn text_of(&mut self, out: Outgoing) -> Option<String> {
        match out {
            Outgoing::Next { id, payload } => {
                self.running.contains_key(&id).then(|| message("next", &id, &payload))
            }
            Outgoing::Error { id, payload } => {
                self.running.remove(&id).map(|_| message("error", &id, &payload))
            }
            Outgoing::Complete { id } => {
                self.running.remove(&id)?;
                let id = serde_json::Value::String(id);
                Some(format!("{{\"type\":\"complete\",\"id\":{id}}}"))
            }
            Outgoing::Close(_) => None,
        }
    }
}

fn message(kind: &str, id: &str, payload: &str) -> String {
    let id = serde_json::Value::String(id.to_owned());
    format!("{{\"type\":\"{kind}\",\"id\":{id},\"payload\":{payload}}}")
}

/// `false` when the client takes nothing any more.
async fn write(socket: &mut WebSocket, message: Message) -> bool {
    matches!(time::timeout(WRITE_DEADLINE, socket.send(message)).await, Ok(Ok(())))
}
