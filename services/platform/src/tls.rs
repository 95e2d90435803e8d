//! The certificates of a process as the configuration has them: what its doors show, whom they let in, whom its clients
//! believe.

use super::{
    Refusal, Settings,
    caller::Caller,
    config::is_loopback,
    http::Secured,
    row::{MayCall, Service, Speaks},
};
use http::Extensions;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use fafnir_tls::*;

/// The component that a process is which runs several services, or an operator's command: it may do everything.
pub const PLATFORM: &str = "platform";
/// The component that clients' requests come from: it alone speaks for users.
const GATEWAY: &str = "api-gateway";
/// What a service that was called for a user asks in that user's name: what the user may.
const ASKED_FOR_USERS: &str = "CheckPermission";
/// Files of an authority and of a component, as `fafnir secrets tls` and Kubernetes name them.
pub const AUTHORITY_FILE: &str = "ca.crt";
pub const CERTIFICATE_FILE: &str = "tls.crt";
pub const KEY_FILE: &str = "tls.key";

/// What a process shows, and whom it believes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    doors: BTreeMap<&'static str, Server>,
    operations: BTreeMap<&'static str, Server>,
    callers: BTreeMap<&'static str, &'static [MayCall]>,
    client: Client,
}

/// The files of a component, where the configuration names some.
pub fn files(settings: &Settings, component: &str) -> Option<Files> {
    let tls = &settings.tls;
    let pair = |certificate: PathBuf, key: PathBuf| Some(Files { certificate, key });
    if !tls.certificate.is_empty() {
        return pair((&tls.certificate).into(), (&tls.key).into());
    }
    let dir = Path::new(&tls.dir).join(component);
    if tls.dir.is_empty() { None } else { pair(dir.join(CERTIFICATE_FILE), dir.join(KEY_FILE)) }
}

/// What the gateway's door shows, or the embedded broker's: their own certificate, else that of the component.
pub fn public_files(settings: &Settings, component: &str) -> Option<Files> {
    let (certificate, key) = match component {
        GATEWAY => (&settings.gateway.tls_certificate, &settings.gateway.tls_key),
        _ => (&settings.broker.tls_certificate, &settings.broker.tls_key),
    };
    if certificate.is_empty() {
        files(settings, component)
    } else {
        Some(Files { certificate: certificate.into(), key: key.into() })
    }
}

/// The file of the authority that services know one another by.
fn authority(settings: &Settings) -> Option<PathBuf> {
    let tls = &settings.tls;
    match tls.authority.as_str() {
        "" | "system" if tls.dir.is_empty() => None,
        "" | "system" => Some(Path::new(&tls.dir).join(AUTHORITY_FILE)),
        path => Some(path.into()),
    }
}

/// Whom a client of a server believes: `own` is its `authority` setting.
pub fn trust(settings: &Settings, own: &str) -> Trust {
    match own {
        "system" => Trust::System,
        "" if settings.tls.authority == "system" => Trust::System,
        "" => authority(settings).map_or(Trust::System, Trust::Authority),
        path => Trust::Authority(path.into()),
    }
}

/// How the gateway's clients secure their connections.
///
/// # Errors
/// Where the authority's file cannot be used.
pub fn client(settings: &Settings) -> Result<Client, Error> {
    Client::open(trust(settings, ""), None)
}

/// Whether services show certificates to one another.
pub fn between_services(settings: &Settings) -> bool {
    !settings.tls.dir.is_empty() || !settings.tls.certificate.is_empty()
}

/// Scheme of the address of a service.
pub fn scheme(settings: &Settings, service: &Service) -> &'static str {
    match service.speaks {
        Speaks::Nats => "nats",
        Speaks::Http if service.public && public_files(settings, service.name).is_some() => "https",
        Speaks::Http if !service.public && between_services(settings) => "https",
        Speaks::Http => "http",
    }
}

impl Tls {
    /// Reads what `who` shows as a client, and what each of its `services` shows at its doors.
    ///
    /// # Errors
    /// Where a file cannot be used; it is named.
    pub fn open(settings: &Settings, who: &str, services: &[&'static Service]) -> Result<Self, Error> {
        let mut tls = Self {
            callers: services.iter().map(|service| (service.name, service.callers)).collect(),
            ..Self::default()
        };
        for service in services.iter().filter(|service| service.speaks == Speaks::Http && service.public) {
            if let Some(files) = public_files(settings, service.name) {
                tls.doors.insert(service.name, Server::open(&files, None)?.http());
            }
        }
        let Some(authority) = authority(settings).filter(|_| between_services(settings)) else {
            return Ok(tls);
        };
        for service in services {
            let Some(files) = files(settings, service.name) else { continue };
            if service.speaks == Speaks::Http && !service.public {
                tls.doors.insert(service.name, Server::open(&files, Some(authority.clone()))?.http());
            }
            tls.operations.insert(service.name, Server::open(&files, None)?.http());
        }
        tls.client = Client::open(Trust::Authority(authority), files(settings, who).as_ref())?;
        Ok(tls)
    }

    /// The same for a component that is no service: its door for operations shows its certificate, where there are some.
    ///
    /// # Errors
    /// Where a file cannot be used; it is named.
    pub fn beside(mut self, settings: &Settings, component: &'static str) -> Result<Self, Error> {
        if between_services(settings)
            && let Some(files) = files(settings, component)
        {
            self.operations.insert(component, Server::open(&files, None)?.http());
        }
        Ok(self)
    }

    /// How a service's door is secured.
    pub fn door(&self, service: &str) -> Option<Server> {
        self.doors.get(service).cloned()
    }

    /// How its door for operations is.
    pub fn operations(&self, service: &str) -> Option<Server> {
        self.operations.get(service).cloned()
    }

    /// How this process reaches services.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Who may call a service.
    pub fn callers(&self, service: &'static str) -> Callers {
        Callers { service, list: self.callers.get(service).copied().unwrap_or_default() }
    }
}

/// Who may call a service, where its door demands certificates.
#[derive(Debug, Clone, Copy)]
pub struct Callers {
    service: &'static str,
    list: &'static [MayCall],
}

impl Callers {
    /// Looks whether the certificate that a gRPC call came with may make it, for whom it is made. A call without one came
    /// from this very process, or to a door in the clear.
    ///
    /// # Errors
    /// The refusal, which names both ends.
    pub fn admit(&self, came: &Extensions, path: &str, caller: &Caller) -> Result<(), Refusal> {
        let Some(name) = named(came)? else { return Ok(()) };
        let method = path.rsplit('/').next().unwrap_or_default();
        let may = self
            .list
            .iter()
            .any(|may| may.caller == name && (may.methods.is_empty() || may.methods.contains(&method)));
        if !may {
            return Err(Refusal::denied(format!("{name} may not call {method} of {}", self.service)));
        }
        match caller {
            Caller::User(_) if name != GATEWAY && method != ASKED_FOR_USERS => {
                Err(Refusal::denied(format!("{name} speaks for no user")))
            }
            Caller::System(said) if said != name => {
                Err(Refusal::denied(format!("{name} says that it is {said}")))
            }
            _ => Ok(()),
        }
    }

    /// The same of a request that is no gRPC.
    ///
    /// # Errors
    /// The refusal.
    pub fn admit_rest(&self, came: &Extensions) -> Result<(), Refusal> {
        let Some(name) = named(came)? else { return Ok(()) };
        if self.list.iter().any(|may| may.caller == name && may.methods.is_empty()) {
            return Ok(());
        }
        Err(Refusal::denied(format!("{name} may not call {}", self.service)))
    }
}

/// The component whose certificate has to be looked at.
fn named(came: &Extensions) -> Result<Option<&str>, Refusal> {
    match came.get::<Secured>().and_then(|secured| secured.caller.as_ref()) {
        None => Ok(None),
        Some(Some(name)) if name == PLATFORM => Ok(None),
        Some(Some(name)) => Ok(Some(name)),
        Some(None) => Err(Refusal::denied("the caller's certificate names no component of the platform")),
    }
}

/// Doors that other machines reach in the clear. One sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} would listen on {host} ({setting}) without TLS: other machines would reach what they say in the clear",
    doors.join(", ")
)]
pub struct Exposed {
    pub setting: &'static str,
    pub host: String,
    pub doors: Vec<String>,
}

/// What to do about it.
pub const EXPOSED_HINT: &str = "name certificates (`fafnir secrets tls DIR` makes some, tls.dir = DIR uses them), \
                                listen on 127.0.0.1, or write bind.insecure = true";

/// The doors of `services` that other machines would reach in the clear.
pub fn exposed(settings: &Settings, services: &[&'static Service]) -> Vec<Exposed> {
    let bind = &settings.bind;
    let names = |doors: Vec<&&Service>| doors.iter().map(|s| s.name.to_owned()).collect::<Vec<_>>();
    let outer = services.iter().filter(|s| s.public && public_files(settings, s.name).is_none()).collect();
    let inner = services.iter().filter(|s| !between_services(settings) && !s.public).collect();
    let mut operations = names(services.iter().filter(|_| !between_services(settings)).collect());
    for name in &mut operations {
        name.push_str("'s operations");
    }
    let mut found = Vec::new();
    for (setting, host, doors) in [
        ("bind.host", &bind.host, names(outer)),
        ("bind.inner_host", &bind.inner_host, [names(inner), operations].concat()),
    ] {
        if !doors.is_empty() && !is_loopback(host) {
            found.push(Exposed { setting, host: host.clone(), doors });
        }
    }
    found
}
