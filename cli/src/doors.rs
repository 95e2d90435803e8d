//! The services of a platform and where they answer: of the processes that the configuration names, else of the stack that
//! runs on the data directory.

use crate::{
    output::{Error, Exit, Result},
    stack::{self, RunFile},
};
use fafnir_proto::reason::Reason;
use fafnir_services::{
    ALL, compose,
    platform::{Settings, tls},
};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// An operations door answers within this time or does not.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read: the metrics of a process are some 100 kB.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// A service and its doors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// The service's name on the command line.
    pub service: String,
    /// Where it takes requests.
    pub address: String,
    /// Where it is watched; none: on a port that nobody outside its process knows.
    pub operations: Option<String>,
}

/// A running platform.
#[derive(Debug)]
pub struct Doors {
    /// What the stack says of itself; none: the configuration names processes.
    pub run: Option<RunFile>,
    pub each: Vec<Door>,
    tls: tls::Client,
}

/// Whether the configuration names services that run as processes of their own.
pub fn are_elsewhere(settings: &Settings) -> bool {
    !settings.addresses.stock.is_empty()
}

/// The platform that these settings speak of.
///
/// # Errors
/// No stack runs, and no process is named; or certificates cannot be used.
pub fn find(settings: &Settings) -> Result<Doors> {
    if are_elsewhere(settings) {
        let addresses = compose::directory(settings);
        let each = ALL.iter().filter(|service| !service.foundation).filter_map(|service| {
            let address = addresses.get(service.directory)?.clone();
            let operations = beside(&address, settings);
            Some(Door { service: service.name.to_owned(), address, operations })
        });
        return Ok(Doors { run: None, each: each.collect(), tls: tls::client(settings)? });
    }
    let run = stack::running(&settings.data_dir()).ok_or_else(|| not_running(settings))?;
    let each = run.services.iter().map(|(service, address)| Door {
        service: service.clone(),
        address: address.clone(),
        operations: run.operations.get(service).cloned(),
    });
    Ok(Doors { each: each.collect(), tls: stack::client(&run)?, run: Some(run) })
}

/// The error where nothing runs.
pub fn not_running(settings: &Settings) -> Error {
    Error::new(Exit::NotRunning, format!("nothing runs on {}", settings.data_dir().display()))
        .code(Reason::NOT_RUNNING)
        .hint("start a platform with `fafnir up`")
}

/// The door for operations of a service at this address; none where the configuration leaves its port to the system.
fn beside(address: &str, settings: &Settings) -> Option<String> {
    let offset = settings.ports.operations_offset;
    let (_, host) = address.split_once("://")?;
    let (name, port) = host.trim_end_matches('/').rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(offset).filter(|_| offset != 0)?;
    let scheme = if tls::between_services(settings) { "https" } else { "http" };
    Some(format!("{scheme}://{name}:{port}"))
}

impl Doors {
    /// Whether this one is ready; else why not.
    pub async fn ready(&self, door: &Door) -> Result<(), String> {
        match &door.operations {
            Some(operations) => ready(operations, &self.tls).await,
            None => Err("its door for operations is not known".to_owned()),
        }
    }

    /// The metrics of the process behind this door.
    pub async fn metrics(&self, door: &Door) -> Result<String, String> {
        let operations = door.operations.as_ref().ok_or("its door for operations is not known")?;
        match get(operations, "/metrics", &self.tls).await? {
            (true, text) => Ok(text),
            (false, why) => Err(why),
        }
    }
}

/// Whether an operations door says ready; else what it says.
pub async fn ready(operations: &str, tls: &tls::Client) -> Result<(), String> {
    match get(operations, "/readyz", tls).await? {
        (true, _) => Ok(()),
        (false, why) => Err(why),
    }
}

/// Whether the answer was 200, and its body.
async fn get(operations: &str, path: &str, tls: &tls::Client) -> Result<(bool, String), String> {
    let silent = || "it does not answer".to_owned();
    let (scheme, host) = operations.split_once("://").ok_or_else(silent)?;
    let (name, port) = host.rsplit_once(':').ok_or_else(silent)?;
    let port = port.parse().map_err(|_| silent())?;
    let ask = async {
        let mut stream = tls.connect(name, port, scheme == "https").await?;
        // 1.0: the body comes as it is, and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match tokio::time::timeout(TIMEOUT, ask).await {
        Ok(Ok(answer)) => {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let is_ok = head.split_whitespace().nth(1) == Some("200");
            Ok((is_ok, if is_ok { body.to_owned() } else { body.trim().to_owned() }))
        }
        Ok(Err(e)) => Err(tls::sentence(&e).unwrap_or_else(silent)),
        Err(_) => Err(silent()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_the_configuration_have_their_doors_beside_them() {
        let mut settings = Settings::default();
        "http://stock:8084".clone_into(&mut settings.addresses.stock);
        let doors = find(&settings).unwrap();
        let stock = doors.each.iter().find(|door| door.service == "stock-service").unwrap();
        assert_eq!(stock.operations.as_deref(), Some("http://stock:9084"));
        let gateway = doors.each.iter().find(|door| door.service == "api-gateway").unwrap();
        assert_eq!(gateway.operations.as_deref(), Some("http://127.0.0.1:9080"));
        assert_eq!(doors.each.len(), 8, "{:?}", doors.each);
        settings.ports.operations_offset = 0;
        assert!(find(&settings).unwrap().each.iter().all(|door| door.operations.is_none()));
    }
}
