//! CPU time of one call between two services, over loopback and in process: `cargo bench -p fafnir-platform`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use fafnir_platform::{
    Clock, Context, Settings, caller, disk::Disk, health::Health, secrets::Secrets, server, tasks::Tasks,
    tls::Tls,
};
use fafnir_proto::{
    client::{Caller, Clients},
    id::UserId,
    v1::{self, security_server::Security, security_server::SecurityServer},
};
use futures::future::join_all;
use std::{collections::BTreeMap, fs, sync::Arc, time::Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

const SERVICE: &str = "security-service";
const CALLS: u32 = 200_000;

/// Answers at once: what is measured is the way to it and back.
#[derive(Clone)]
struct Played;

#[tonic::async_trait]
impl Security for Played {
    async fn check_permission(
        &self,
        request: Request<v1::CheckPermissionRequest>,
    ) -> Result<Response<v1::CheckPermissionReply>, Status> {
        let has_permission = matches!(caller::of(&request)?, Caller::User(_));
        Ok(Response::new(v1::CheckPermissionReply { has_permission }))
    }
    async fn permissions(
        &self,
        _: Request<v1::PermissionsRequest>,
    ) -> Result<Response<v1::PermissionsReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn grant(&self, _: Request<v1::GrantRequest>) -> Result<Response<v1::Empty>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn revoke(&self, _: Request<v1::GrantRequest>) -> Result<Response<v1::Empty>, Status> {
        Err(Status::unimplemented(""))
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
        Err(Status::unimplemented(""))
    }
}

/// CPU time of this process so far, in clock ticks of 10 ms.
fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

fn context(in_process: bool, listener: &TcpListener, dir: &std::path::Path) -> Context {
    let secrets = Secrets::load_or_create(dir).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let addresses = BTreeMap::from([(SERVICE.to_owned(), url)]);
    let here: &[&str] = if in_process { &[SERVICE] } else { &[] };
    let clients = Clients::new(&addresses, here, secrets.service_token.current().expose()).unwrap();
    Context {
        service: SERVICE,
        settings: Arc::new(Settings::default()),
        secrets: Arc::new(secrets),
        tls: Tls::default(),
        clients,
        clock: Clock::wall(),
        tasks: Tasks::new(CancellationToken::new()),
        health: Health::default(),
        disk: Disk::default(),
        addresses: Arc::new(addresses),
    }
}

async fn call(ctx: &Context, user: &Caller) {
    let request = v1::CheckPermissionRequest {
        user_id: "5d684a32-8ba4-4ec3-8ce3-68df382341a2".to_owned(),
        permission: "order:create".to_owned(),
    };
    let reply = ctx.clients.security(user).check_permission(request).await.unwrap();
    assert!(reply.into_inner().has_permission);
}

async fn measure(in_process: bool, under_way: u32) {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ctx = context(in_process, &listener, dir.path());
    fafnir_platform::telemetry::recorder();
    server::serve_grpc(&ctx, SERVICE, listener, SecurityServer::new(Played)).await.unwrap();
    let user = Caller::User(UserId::new(Uuid::new_v4()));
    call(&ctx, &user).await;
    let (started, before) = (Instant::now(), ticks());
    let callers = (0..under_way).map(|_| {
        let (ctx, user) = (ctx.clone(), user.clone());
        tokio::spawn(async move {
            for _ in 0..CALLS / under_way {
                call(&ctx, &user).await;
            }
        })
    });
    for outcome in join_all(callers).await {
        outcome.unwrap();
    }
    let calls = f64::from(CALLS / under_way * under_way);
    let cpu = (ticks() - before) as f64 * 10_000.0 / calls;
    let wall = started.elapsed().as_secs_f64() * 1e6 / calls;
    let way = if in_process { "in process" } else { "loopback" };
    println!("{way:10} {under_way:3} under way: {cpu:6.2} µs of CPU, {wall:6.2} µs of wall time a call");
    ctx.tasks.shutdown().cancel();
    ctx.tasks.drain().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for in_process in [false, true] {
        for under_way in [1, 64] {
            runtime.block_on(async move { tokio::spawn(measure(in_process, under_way)).await.unwrap() });
        }
    }
}
