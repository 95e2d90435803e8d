//! The manifest of the databases of a server, in a database beside them: each one's id, how far it had come when that was
//! last noted, and the exchange that they belong with.
//!
//! A data directory names the manifest that it was used with, and how far that had come, so that a server that lost
//! everything, or is an older copy as a whole, is found by whoever has a data directory.

use super::{
    Error, Migration, Tx, own,
    postgres::{self, Postgres},
    postgres_name,
};
use crate::{
    config::Settings,
    error, manifest,
    manifest::{Claim, Document, Entry, Manifest, Place},
    params,
    tasks::{Schedule, Tasks},
};
use fafnir_disk::note::{Mark, Said};
use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};
use uuid::Uuid;

/// The server's manifest among the stores of a data directory.
pub const STORE: &str = "postgres";
/// Whose database it would be.
const SERVICE: &str = "manifest";
/// How often what was written is marked and noted.
const MARK_EVERY: Duration = Duration::from_secs(1);
const TABLES: [&str; 3] = [
    own::TABLE,
    "CREATE TABLE IF NOT EXISTS manifest (one INTEGER PRIMARY KEY CHECK (one = 1), document TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS note (store TEXT PRIMARY KEY, id BLOB NOT NULL, mark INTEGER NOT NULL) STRICT",
];

/// The database that the manifest of a prefix is in.
pub fn name(prefix: &str) -> String {
    postgres_name(prefix, SERVICE)
}

fn refused(e: manifest::Error) -> Error {
    Error::Unusable(e.to_string())
}

fn plain(e: error::Error) -> Error {
    match e {
        error::Error::Db(e) => e,
        other => Error::Unusable(other.to_string()),
    }
}

/// The manifest of a server's databases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    postgres: Arc<Postgres>,
    place: Place,
    id: Uuid,
    local: Manifest,
}

impl Server {
    /// Opens the manifest, which the data directory may name; makes it where nobody does.
    pub async fn open(settings: &Settings, now_us: i64) -> Result<Self, Error> {
        let (url, name) = (&settings.database.url, name(&settings.database.prefix));
        let (local, place) = (Manifest::of(&settings.data_dir()), Place::Server(name.clone()));
        let known = local.stores().map_err(refused)?.remove(STORE).filter(|entry| entry.made);
        if let Some(Entry { id, .. }) = known
            && !postgres::exists_soon(url, &name).await?
        {
            let (store, since) =
                ("the manifest of the databases".to_owned(), known.map_or_else(String::new, |e| e.since()));
            return Err(refused(manifest::Error::Missing { place, store, id, since }));
        }
        // Before the mark: what is noted was marked before, also while other processes of this directory go on marking.
        let noted = local.noted(STORE).map_err(refused)?;
        let postgres = Arc::new(Postgres::open(url, &name).await?);
        let (id, mark) = postgres.write(prepare).await.map_err(plain)?;
        match known {
            Some(entry) if entry.id != id => {
                let (found, since) = (id.to_string(), entry.since());
                return Err(refused(manifest::Error::Foreign { place, found, id: entry.id, since }));
            }
            Some(_) => {
                if let Some(what) = older(&noted, id, mark) {
                    return Err(refused(manifest::Error::Older { place, what }));
                }
            }
            None => local.put(STORE, id, now_us).map_err(refused)?,
        }
        Ok(Self { postgres, place, id, local })
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Document) -> Result<T, manifest::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let place = self.place.clone();
        let change = move |tx: &mut dyn Tx| {
            // One after the other, whoever shares the server.
            tx.lock_schema()?;
            let before: String = tx.query_one("SELECT document FROM manifest", &[])?.get(0)?;
            let mut document = Document::read(&place, before.as_bytes()).map_err(refused)?;
            let done = work(&mut document).map_err(refused)?;
            let text = text(&document)?;
            if text != before {
                tx.execute("UPDATE manifest SET document = ?1", params![text])?;
            }
            Ok(done)
        };
        self.postgres.write(change).await.map_err(plain)
    }

    /// Claims the database of a service before it is opened.
    pub async fn claim(
        &self,
        url: &str,
        database: &str,
        service: &'static str,
        projection: bool,
        now_us: i64,
    ) -> Result<Claim, Error> {
        let found = postgres::found(url, database).await?;
        let place = Place::Server(database.to_owned());
        let (claim, is_lost) = self
            .change(move |document| {
                let is_lost = document.stores.get(service).is_some_and(|entry| entry.made);
                let claim = document.claim(service, &place, found, projection, now_us)?;
                Ok((claim, is_lost))
            })
            .await?;
        if is_lost && matches!(claim, Claim::Make(_)) {
            tracing::error!(database, "the projection is gone, and is made again from the facts");
        }
        Ok(claim)
    }

    /// What was last noted of a service's database. To be read before the mark that it is compared with: replicas go on
    /// marking, and note what they have marked.
    async fn noted(&self, service: &'static str) -> Result<Said, Error> {
        let noted = move |tx: &mut dyn Tx| {
            let row = tx.query_opt("SELECT id, mark FROM note WHERE store = ?1", params![service])?;
            let Some(row) = row else { return Ok(Said::Nothing) };
            let store: Vec<u8> = row.get(0)?;
            Ok(store.try_into().map_or(Said::Unreadable, |store| {
                Said::Mark(Mark { store, reached: row.get(1).unwrap_or(0), chain: 0 })
            }))
        };
        self.postgres.read(noted).await.map_err(plain)
    }

    /// The database of a service is there, whole, and has this mark: one older than was noted is refused, a projection's
    /// told.
    async fn made(
        &self,
        claim: &Claim,
        (database, service): (&str, &'static str),
        projection: bool,
        noted: &Said,
        mark: u64,
    ) -> Result<(), Error> {
        let id = claim.entry().id;
        if let Claim::Make(_) = claim {
            self.change(move |document| {
                document.made(service, id);
                Ok(())
            })
            .await?;
            let forget = move |tx: &mut dyn Tx| {
                Ok(tx.execute("DELETE FROM note WHERE store = ?1 AND id <> ?2", params![service, blob(id)])?)
            };
            self.postgres.write(forget).await.map_err(plain)?;
            return Ok(());
        }
        match older(noted, id, mark) {
            None => Ok(()),
            Some(what) if projection => {
                tracing::error!(database, "{what}: its end is lost, and made again from the facts");
                Ok(())
            }
            Some(what) => {
                Err(refused(manifest::Error::Older { place: Place::Server(database.to_owned()), what }))
            }
        }
    }

    /// Forgets a store that was taken away on purpose.
    pub async fn forget(&self, service: &'static str) -> Result<(), Error> {
        self.change(move |document| {
            document.stores.remove(service);
            Ok(())
        })
        .await
    }

    /// The exchange that the databases belong with, this one where they belong with none yet.
    pub async fn follows(&self, exchange: Uuid) -> error::Result<Uuid> {
        self.postgres.write(move |tx| own::follows(tx, exchange)).await
    }

    /// Notes what was written to a database, once a second and when all else has ended.
    pub fn keep(&self, database: &Arc<Postgres>, id: Uuid, service: &'static str, tasks: &Tasks) {
        let keeper = Arc::new(Keeper {
            server: self.clone(),
            database: Arc::clone(database),
            id,
            service,
            marked: AtomicU64::new(database.commits()),
        });
        let last = Arc::clone(&keeper);
        tasks.every(format!("{service}: marks"), Schedule::after(MARK_EVERY), move || {
            let keeper = Arc::clone(&keeper);
            async move { keeper.mark().await }
        });
        tasks.at_end(async move {
            if let Err(e) = last.mark().await {
                tracing::warn!(service, error = %e, "the last commits are not noted");
            }
        });
    }

    /// Notes how far a database has come, and how far the manifest itself has.
    async fn note(&self, service: &'static str, id: Uuid, mark: u64) -> Result<(), Error> {
        let sql = "INSERT INTO note (store, id, mark) VALUES (?1, ?2, ?3) ON CONFLICT (store) DO UPDATE \
                   SET id = excluded.id, mark = CASE WHEN note.id = excluded.id AND note.mark > excluded.mark \
                   THEN note.mark ELSE excluded.mark END";
        let note = move |tx: &mut dyn Tx| {
            tx.execute(sql, params![service, blob(id), mark])?;
            own::mark_next(tx)
        };
        let reached = self.postgres.write(note).await.map_err(plain)?;
        let mark = Mark { store: *self.id.as_bytes(), reached, chain: 0 };
        let local = self.local.clone();
        // Opened each time: every service of the process writes it.
        let written = tokio::task::spawn_blocking(move || {
            local
                .note(STORE)
                .map_err(refused)?
                .write(&mark)
                .map_err(|e| Error::Unusable(format!("the note: {e}")))
        });
        written.await.map_err(|e| Error::Unusable(e.to_string()))?
    }
}

/// Marks what was written to one database.
struct Keeper {
    server: Server,
    database: Arc<Postgres>,
    id: Uuid,
    service: &'static str,
    /// Commits when it was last marked.
    marked: AtomicU64,
}

impl Keeper {
    async fn mark(&self) -> Result<(), Error> {
        let commits = self.database.commits();
        if self.marked.load(Ordering::Acquire) == commits {
            return Ok(());
        }
        let mark = self.database.write(own::mark_next).await.map_err(plain)?;
        self.server.note(self.service, self.id, mark).await?;
        // The mark is a commit itself.
        self.marked.store(commits + 1, Ordering::Release);
        Ok(())
    }
}

fn blob(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

fn text(document: &Document) -> Result<String, Error> {
    serde_json::to_string_pretty(document).map_err(|e| Error::Statement(e.to_string()))
}

/// What a store has lost that is at this mark.
fn older(noted: &Said, id: Uuid, mark: u64) -> Option<String> {
    match noted {
        Said::Mark(noted) if noted.store == *id.as_bytes() && mark < noted.reached => {
            Some(format!("its last mark is {mark}, {} was noted", noted.reached))
        }
        _ => None,
    }
}

/// Makes what is missing of the manifest; answers its id and its mark.
fn prepare(tx: &mut dyn Tx) -> error::Result<(Uuid, u64)> {
    tx.lock_schema()?;
    let sql = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'note'";
    if tx.query_one(sql, &[])?.get::<i64>(0)? == 0 {
        for table in TABLES {
            tx.execute(table, &[])?;
        }
    }
    own::put_id(tx, Uuid::new_v4())?;
    let empty = text(&Document::default())?;
    let sql = "INSERT INTO manifest (one, document) VALUES (1, ?1) ON CONFLICT (one) DO NOTHING";
    tx.execute(sql, params![empty])?;
    own::who(tx)
}

/// Opens the database of a service that the server's manifest names; the claim is the caller's to settle.
pub async fn open(
    settings: &Settings,
    service: &'static str,
    migrations: &'static [Migration],
    projection: bool,
    tasks: &Tasks,
    now_us: i64,
) -> Result<super::Db, Error> {
    let (url, database) = (&settings.database.url, postgres_name(&settings.database.prefix, service));
    let server = Server::open(settings, now_us).await?;
    let claim = server.claim(url, &database, service, projection, now_us).await?;
    let postgres = Arc::new(Postgres::open(url, &database).await?);
    let db = super::Db::on(super::Backend::Postgres(Arc::clone(&postgres)));
    let id = claim.entry().id;
    db.migrate(migrations, now_us, id).await?;
    postgres.learn_constraints().await?;
    let noted = server.noted(service).await?;
    let (there, mark) = postgres.read(own::who).await.map_err(plain)?;
    if there != id {
        let (place, found, since) = (Place::Server(database), there.to_string(), claim.entry().since());
        return Err(refused(manifest::Error::Foreign { place, found, id, since }));
    }
    server.made(&claim, (&database, service), projection, &noted, mark).await?;
    server.keep(&postgres, id, service, tasks);
    Ok(super::Db { server: Some(server), ..db })
}
