//! A call between two services ends alike whether they share a process or a socket.

use crate::stack::{self as testing, DEADLINE, Stack};
use fafnir_platform::{Context, Refusal, caller, server};
use fafnir_proto::{
    client::{Authorised, Caller, Clients, MESSAGE_BYTES_MAX},
    in_process::{CONCURRENT_CALLS_MAX, WAITING_CALLS_MAX},
    reason::Reason,
    v1::{self, security_client::SecurityClient, security_server::Security, security_server::SecurityServer},
};
use futures::future::{join_all, poll_immediate};
use std::{collections::BTreeMap, future::pending, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, copy_bidirectional, sink},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::unconstrained,
};
use tonic::{Code, Request, Response, Status};

const SERVICE: &str = "security-service";

/// A service that does what `permission` says, and tells which of its handlers began and were dropped.
#[derive(Clone)]
struct Played(mpsc::UnboundedSender<&'static str>);

/// Tells when it is dropped.
struct Handler(mpsc::UnboundedSender<&'static str>);

impl Drop for Handler {
    fn drop(&mut self) {
        self.0.send("ended").ok();
    }
}

#[tonic::async_trait]
impl Security for Played {
    async fn check_permission(
        &self,
        request: Request<v1::CheckPermissionRequest>,
    ) -> Result<Response<v1::CheckPermissionReply>, Status> {
        let caller = caller::of(&request)?;
        let _handler = Handler(self.0.clone());
        self.0.send("began").ok();
        match request.into_inner().permission.as_str() {
            "refuse" => Err(Refusal::not_found(Reason::ROLE_UNKNOWN, "no such role").into()),
            "panic" => panic!("the handler panics, as the test asks"),
            "hang" => pending().await,
            _ => {
                let has_permission = caller == testing::system();
                Ok(Response::new(v1::CheckPermissionReply { has_permission }))
            }
        }
    }
    async fn permissions(
        &self,
        request: Request<v1::PermissionsRequest>,
    ) -> Result<Response<v1::PermissionsReply>, Status> {
        let roles = vec!["x".repeat(request.into_inner().user_id.parse().unwrap())];
        Ok(Response::new(v1::PermissionsReply { roles, ..Default::default() }))
    }
    async fn grant(&self, _: Request<v1::GrantRequest>) -> Result<Response<v1::Empty>, Status> {
        Ok(Response::new(v1::Empty {}))
    }
    async fn revoke(&self, _: Request<v1::GrantRequest>) -> Result<Response<v1::Empty>, Status> {
        Err(Status::unimplemented("not played"))
    }
    async fn suspend(&self, _: Request<v1::SuspendRequest>) -> Result<Response<v1::Empty>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn resume(&self, _: Request<v1::SuspendRequest>) -> Result<Response<v1::Empty>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn record(&self, _: Request<v1::RecordRequest>) -> Result<Response<v1::Empty>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn audit_log(
        &self,
        _: Request<v1::AuditLogRequest>,
    ) -> Result<Response<v1::AuditLogReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn verify_audit(
        &self,
        _: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_roles(&self, _: Request<v1::Empty>) -> Result<Response<v1::ListRolesReply>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

/// The played service and somebody who calls it.
struct Wire {
    stack: Stack,
    ctx: Context,
    listener: Option<TcpListener>,
    told: mpsc::UnboundedReceiver<&'static str>,
    played: Played,
}

impl Wire {
    async fn new(in_process: bool) -> Self {
        let stack = Stack::start(&[]).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let addresses = BTreeMap::from([(SERVICE.to_owned(), url)]);
        let here: &[&str] = if in_process { &[SERVICE] } else { &[] };
        let token = stack.running.context.secrets.service_token.current();
        let clients = Clients::new(&addresses, here, token.expose()).unwrap();
        let ctx = Context { clients, ..stack.running.context.clone() };
        assert_eq!(ctx.clients.place(SERVICE).is_some(), in_process);
        let (tell, told) = mpsc::unbounded_channel();
        Self { stack, ctx, listener: Some(listener), told, played: Played(tell) }
    }

    async fn serving(in_process: bool) -> Self {
        let mut this = Self::new(in_process).await;
        this.serve().await;
        this
    }

    async fn serve(&mut self) {
        let listener = self.listener.take().expect("served once");
        let server = SecurityServer::new(self.played.clone());
        server::serve_grpc(&self.ctx, SERVICE, listener, server).await.unwrap();
    }

    fn client(&self) -> SecurityClient<Authorised> {
        self.ctx.clients.security(&testing::system())
    }

    /// Calls with this deadline; the answer, or the code and the sentence.
    async fn call(&self, what: &str, deadline: Duration) -> Result<bool, (Code, String)> {
        let permission = what.to_owned();
        let mut request = Request::new(v1::CheckPermissionRequest { permission, ..Default::default() });
        request.set_timeout(deadline);
        let answer = self.client().check_permission(request).await;
        answer.map(|reply| reply.into_inner().has_permission).map_err(|s| (s.code(), s.message().to_owned()))
    }

    async fn next(&mut self, expected: &str) {
        let told = tokio::time::timeout(DEADLINE, self.told.recv()).await.expect("told in time");
        assert_eq!(told, Some(expected));
    }
}

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_call_ends_alike_over_a_socket_and_in_process() {
    let mut outcomes = Vec::new();
    for in_process in [false, true] {
        let wire = Wire::serving(in_process).await;
        assert_eq!(wire.call("", DEADLINE).await, Ok(true));
        let refused = wire.call("refuse", DEADLINE).await;
        assert_eq!(refused, Err((Code::NotFound, "no such role".to_owned())));
        let late = wire.call("hang", SHORT).await;
        assert_eq!(late, Err((Code::Cancelled, "Timeout expired".to_owned())));
        let (panicked, _) = wire.call("panic", DEADLINE).await.unwrap_err();
        // The caller lives on, and so does the service.
        assert_eq!(wire.call("", DEADLINE).await, Ok(true));

        let sized = |bytes: usize| v1::PermissionsRequest { user_id: bytes.to_string() };
        let fits = wire.client().permissions(sized(MESSAGE_BYTES_MAX / 2)).await.unwrap().into_inner();
        assert_eq!(fits.roles[0].len(), MESSAGE_BYTES_MAX / 2);
        let answer = wire.client().permissions(sized(MESSAGE_BYTES_MAX + 1)).await.unwrap_err();
        let role = "x".repeat(MESSAGE_BYTES_MAX + 1);
        let long = v1::GrantRequest { role, ..Default::default() };
        let question = wire.client().grant(long).await.unwrap_err();
        assert_eq!(question.code(), Code::OutOfRange);

        let unknown = wire.client().revoke(v1::GrantRequest::default()).await.unwrap_err();
        let long = [answer, question].map(|status| (status.code(), status.message().to_owned()));
        outcomes.push((panicked, long, unknown.code()));
        wire.stack.stop().await;
    }
    assert_eq!(outcomes[0], outcomes[1]);
}

#[tokio::test]
async fn a_caller_that_goes_away_drops_the_handler() {
    for in_process in [false, true] {
        let mut wire = Wire::serving(in_process).await;
        let client = wire.client();
        let calling = tokio::spawn(async move {
            let request = v1::CheckPermissionRequest { permission: "hang".to_owned(), ..Default::default() };
            client.clone().check_permission(request).await
        });
        wire.next("began").await;
        calling.abort();
        wire.next("ended").await;
        wire.stack.stop().await;
    }
}

#[tokio::test]
async fn a_call_waits_for_a_service_that_starts_and_is_refused_by_one_that_has_stopped() {
    for in_process in [false, true] {
        let mut wire = Wire::new(in_process).await;
        // Not for longer than it has time.
        assert_eq!(wire.call("", SHORT).await.unwrap_err().0, Code::Cancelled);
        let mut client = wire.client();
        let calling = tokio::spawn(async move {
            let mut request = Request::new(v1::CheckPermissionRequest::default());
            request.set_timeout(DEADLINE);
            client.check_permission(request).await
        });
        wire.serve().await;
        assert!(calling.await.unwrap().is_ok());

        let clients = wire.ctx.clients.clone();
        wire.stack.stop().await;
        let request = v1::CheckPermissionRequest::default();
        let status = clients.security(&testing::system()).check_permission(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
}

#[tokio::test]
async fn calls_under_way_end_in_order_at_shutdown() {
    for in_process in [false, true] {
        let mut wire = Wire::serving(in_process).await;
        let mut client = wire.client();
        let calling = tokio::spawn(async move {
            let permission = "hang".to_owned();
            let mut request = Request::new(v1::CheckPermissionRequest { permission, ..Default::default() });
            request.set_timeout(SHORT);
            client.check_permission(request).await
        });
        wire.next("began").await;
        wire.stack.stop().await;
        // It was not cut off: it had its time.
        let status = calling.await.unwrap().unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Cancelled, "Timeout expired"));
    }
}

/// What a connection does when a call has come over it.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It says that it took none.
    InOrder,
    CutOff,
}

impl End {
    async fn of(self, mut client: TcpStream) -> std::io::Result<()> {
        const PREFACE_LEN: usize = 24;
        const HEAD_LEN: usize = 9;
        const HEADERS: u8 = 1;
        const SETTINGS: [u8; HEAD_LEN] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        // Calls up to stream 0, NO_ERROR (RFC 9113, 6.8).
        const GOAWAY: [u8; HEAD_LEN + 8] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        client.write_all(&SETTINGS).await?;
        client.read_exact(&mut [0; PREFACE_LEN]).await?;
        let mut head = [0; HEAD_LEN];
        while head[3] != HEADERS {
            client.read_exact(&mut head).await?;
            let payload = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
            copy(&mut (&mut client).take(payload), &mut sink()).await?;
        }
        if let Self::InOrder = self {
            client.write_all(&GOAWAY).await?;
            copy(&mut client, &mut sink()).await?;
        }
        Ok(())
    }
}

/// Before a server: the first connections end like this, later ones are the server's.
async fn before(server: SocketAddr, ends: Vec<End>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut ends = ends.into_iter();
        while let Ok((mut client, _)) = listener.accept().await {
            let end = ends.next();
            tokio::spawn(async move {
                let Some(end) = end else {
                    let mut server = TcpStream::connect(server).await?;
                    return copy_bidirectional(&mut client, &mut server).await.map(drop);
                };
                end.of(client).await
            });
        }
    });
    here
}

#[tokio::test]
async fn a_call_that_no_server_took_is_sent_again_and_one_that_was_cut_off_is_unavailable() {
    let mut wire = Wire::new(false).await;
    let server = wire.listener.as_ref().unwrap().local_addr().unwrap();
    wire.serve().await;
    let token = wire.ctx.secrets.service_token.current();
    let unavailable = Err(Code::Unavailable);
    for (ends, outcome) in [
        (vec![End::InOrder], Ok(true)),
        (vec![End::InOrder; 2], Ok(true)),
        (vec![End::InOrder; 9], unavailable),
        (vec![End::CutOff], unavailable),
    ] {
        let url = format!("http://{}", before(server, ends.clone()).await);
        let addresses = BTreeMap::from([(SERVICE.to_owned(), url)]);
        wire.ctx.clients = Clients::new(&addresses, &[], token.expose()).unwrap();
        let answer = wire.call("", DEADLINE).await;
        assert_eq!(answer.clone().map_err(|(code, _)| code), outcome, "{ends:?}: {answer:?}");
        if outcome.is_ok() {
            wire.next("began").await;
            wire.next("ended").await;
        }
        assert!(wire.told.try_recv().is_err(), "{ends:?}: it had more than one effect");
    }
    wire.stack.stop().await;
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_there_is_room_for() {
    for in_process in [false, true] {
        let mut wire = Wire::serving(in_process).await;
        let client = wire.client();
        let hang = || {
            let mut client = client.clone();
            let permission = "hang".to_owned();
            let mut request = Request::new(v1::CheckPermissionRequest { permission, ..Default::default() });
            request.set_timeout(DEADLINE);
            tokio::spawn(async move { client.check_permission(request).await })
        };
        // Over a socket the client knows the server's limit once it has answered.
        wire.call("", DEADLINE).await.unwrap();
        wire.next("began").await;
        wire.next("ended").await;
        let hanging: Vec<_> = (0..CONCURRENT_CALLS_MAX).map(|_| hang()).collect();
        for _ in &hanging {
            wire.next("began").await;
        }
        assert_eq!(wire.call("", SHORT).await.unwrap_err().0, Code::Cancelled);
        assert!(wire.told.try_recv().is_err(), "it waited outside");
        hanging[0].abort();
        wire.next("ended").await;
        assert_eq!(wire.call("", DEADLINE).await, Ok(true));
        for call in hanging {
            call.abort();
        }
        wire.stack.stop().await;
    }
}

#[tokio::test]
async fn no_more_calls_wait_than_there_is_room_for() {
    let wire = Wire::new(true).await;
    let place = Arc::clone(wire.ctx.clients.place(SERVICE).unwrap());
    let mut waiting = Box::pin(join_all((0..WAITING_CALLS_MAX).map(|_| wire.call("", DEADLINE))));
    // As one step of this task, however many they are.
    assert!(poll_immediate(unconstrained(waiting.as_mut())).await.is_none());
    let (code, message) = wire.call("", DEADLINE).await.unwrap_err();
    assert_eq!((code, message.as_str()), (Code::Unavailable, "security-service has too many callers"));
    // One that will never serve lets nobody wait.
    place.close();
    for outcome in waiting.await {
        assert_eq!(outcome.unwrap_err().0, Code::Unavailable);
    }
    wire.stack.stop().await;
}

#[tokio::test]
async fn the_caller_and_the_token_are_checked_in_process_too() {
    for in_process in [false, true] {
        let wire = Wire::serving(in_process).await;
        let ask = async |caller: &Caller| {
            let mut client = wire.ctx.clients.security(caller);
            client.check_permission(v1::CheckPermissionRequest::default()).await
        };
        let user = ask(&Caller::User(fafnir_proto::id::UserId::new(uuid::Uuid::nil()))).await.unwrap();
        assert!(!user.into_inner().has_permission);
        // A name that is no metadata becomes another one, not none.
        assert!(!ask(&Caller::system("\n")).await.unwrap().into_inner().has_permission);
        wire.stack.stop().await;
    }
}
