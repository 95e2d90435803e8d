//! The whole books at one position: against exchange-rules §6, against the core's image there, against the facts, and
//! counted again with arithmetic of their own.

mod recount;
mod told;

use super::{
    api::Api,
    domain::ledger::{Cause, Entry, Hash, house_name},
    store::{self, LedgerPage, Standing},
};
use fafnir_platform::{
    Context,
    checks::{Check, facts_after, facts_begin, patient},
    db::Db,
    error::{Error, Result},
    tasks::Schedule,
};
use fafnir_proto::v1;
use recount::{Recount, Terms};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Mutex;
use told::Told;
pub use told::key_digest;
use uuid::Uuid;

/// Ledger rows read at a time.
const PAGE: u32 = 2_000;
/// Accounts of the engine's image read at a time.
const IMAGE_PAGE: u32 = 1_000;
/// How often the service audits itself; each time what is new of the ledger, the whole once a day.
const EVERY: Duration = Duration::from_mins(1);
const WHOLE_EVERY: u32 = 24 * 60;

/// What the ledger adds up to, page by page.
#[derive(Debug, Clone)]
struct Scan {
    chain: Hash,
    /// The last row that it knows.
    until: u64,
    transactions: u64,
    balanced: Check,
    chained: Check,
    numbered: Check,
    /// Last trade of each symbol.
    trades: HashMap<String, i64>,
    /// By the asset's code, and the account's id or name.
    sums: HashMap<String, HashMap<String, i128>>,
    recount: Recount,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            chain: Hash::default(),
            until: 0,
            transactions: 0,
            balanced: Check::new("every ledger transaction sums to 0"),
            chained: Check::new("the chain of the ledger is whole"),
            numbered: Check::new("every trade of a symbol has a number of its own"),
            trades: HashMap::new(),
            sums: HashMap::new(),
            recount: Recount::default(),
        }
    }
}

impl Scan {
    /// Books that begin with a snapshot begin the chain with its hash.
    fn begin(&mut self, standing: &Standing) {
        if self.until == 0
            && let Some(origin) = standing.origin
        {
            self.chain = origin;
            self.recount.begins_open();
        }
    }

    /// Takes what a page has behind the last row that it knows.
    fn page(&mut self, terms: &Terms, page: LedgerPage) {
        for _ in 0..page.orphans {
            self.chained.find("a posting without a transaction".to_owned());
        }
        let known = std::mem::replace(&mut self.until, page.until);
        let is_new = |entry: &Entry| entry.id.unsigned_abs() > known;
        for (entry, hash) in page.entries.into_iter().filter(|(entry, _)| is_new(entry)) {
            self.transactions += 1;
            self.balanced.look(entry.is_balanced(), || format!("transaction {}", entry.id));
            self.chained.look(entry.hash_after(&self.chain) == hash, || format!("transaction {}", entry.id));
            // A changed row is counted once, not with all that follow.
            self.chain = hash;
            self.number(&entry);
            self.recount.entry(terms, &entry);
            for p in entry.postings {
                *self.sums.entry(p.asset).or_default().entry(p.account).or_default() += i128::from(p.amount);
            }
        }
    }

    fn number(&mut self, entry: &Entry) {
        let Some(symbol) = entry.symbol.as_ref().filter(|_| entry.cause == Cause::Trade.number()) else {
            return;
        };
        let last = self.trades.insert(symbol.clone(), entry.exec_seq);
        let follows = last.is_none_or(|last| entry.exec_seq > last);
        self.numbered.look(follows, || format!("trade {symbol}:{}", entry.exec_seq));
    }

    /// Orders that have ended trade no more.
    fn forget_ended(&mut self, facts: &[v1::Fact]) {
        for order in facts.iter().flat_map(|fact| &fact.orders).filter_map(|update| update.order.as_ref()) {
            if order.state().has_ended()
                && let Ok(id) = Uuid::parse_str(&order.id)
            {
                self.recount.forget(id.as_u128());
            }
        }
    }

    /// Compares the balances with what the ledger adds up to.
    fn report(&self, s: &Standing) -> v1::AuditReply {
        let name = |names: &HashMap<i64, String>, key: i64| names.get(&key).cloned().unwrap_or_default();
        let clients = s.balances.iter().map(|b| (b.account, b.asset, i128::from(b.posted)));
        let mut assets = BTreeMap::<String, i128>::new();
        let mut posted_is = Check::new("every balance is the sum of its postings");
        let mut sums = self.sums.clone();
        for (account, asset, posted) in clients.chain(s.house.iter().copied()) {
            let (account, asset) = (name(&s.accounts, account), name(&s.assets, asset));
            *assets.entry(asset.clone()).or_default() += posted;
            let added_up = sums.get_mut(&asset).and_then(|of| of.remove(&account)).unwrap_or(0);
            posted_is.look(added_up == posted, || format!("{asset} of {account}"));
        }
        for (asset, of) in &sums {
            for (account, _) in of.iter().filter(|(_, sum)| **sum != 0) {
                posted_is.find(format!("{asset} of {account}, which has no balance"));
            }
        }
        let mut zero = Check::new("every asset sums to 0 over all accounts");
        for (asset, sum) in &assets {
            zero.look(*sum == 0, || format!("{asset}: {sum}"));
        }
        let mut covered = Check::new("no account is overdrawn");
        for b in &s.balances {
            let fits = b.held >= 0 && b.posted >= b.held;
            covered
                .look(fits, || format!("{} of {}", name(&s.assets, b.asset), name(&s.accounts, b.account)));
        }
        let mut chained = self.chained.clone();
        chained.look(self.chain == s.chain, || "the last row is not the one that the books name".to_owned());
        let narrow = |sum: i128| i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        v1::AuditReply {
            sums: assets.into_iter().map(|(asset, sum)| v1::AssetSum { asset, sum: narrow(sum) }).collect(),
            transactions: self.transactions,
            unbalanced_transactions: self.balanced.findings(),
            negative_available: covered.findings(),
            balance_mismatches: posted_is.findings(),
            chain_breaks: chained.findings(),
            position: s.position,
            checks: [zero, self.balanced.clone(), chained, self.numbered.clone(), posted_is, covered]
                .into_iter()
                .chain(self.counted(s))
                .map(Into::into)
                .collect(),
            ..v1::AuditReply::default()
        }
    }

    /// What was counted again.
    fn counted(&self, s: &Standing) -> Vec<Check> {
        let name = |names: &HashMap<i64, String>, key: i64| names.get(&key).cloned().unwrap_or_default();
        let mut lots = Check::new("cost and gains of every position are those of its trades");
        for b in s.balances.iter().filter(|b| b.asset > 2) {
            let key = (name(&s.accounts, b.account), name(&s.assets, b.asset));
            let lot = self.recount.lot(&key.0, &key.1);
            let fits = (b.posted, b.cost, b.realized, b.realized_total)
                == (lot.quantity, lot.cost, lot.realized, lot.total);
            lots.look(fits, || format!("{} of {}", key.1, key.0));
        }
        let mut trades = Check::new("as many trades are settled as the ledger has");
        let settled = self.recount.trades.looked();
        trades.look(s.trades == settled, || format!("{} are told, {settled} are there", s.trades));
        let r = &self.recount;
        vec![r.trades.clone(), r.money.clone(), r.gains.clone(), lots, trades]
    }
}

/// What is there of an asset: quantity, what of it is held, cost, gain.
type Amounts = (i128, i64, i64, i64);

/// What the core holds: read page by page, then brought to the position of the books by the facts in between.
#[derive(Debug, Default)]
struct Image {
    /// Last account and position of each page; the last one reaches to the end.
    pages: Vec<(String, u64)>,
    /// By account and asset.
    clients: HashMap<String, HashMap<String, Amounts>>,
    /// By the account's name and asset.
    house: HashMap<(String, String), i128>,
    open: Vec<v1::OpenHold>,
    /// Accounts whose held amounts are not the sum of their orders' holds.
    holds: Option<Check>,
}

impl Image {
    fn page(&mut self, page: v1::ImageReply) -> Option<String> {
        let last = page.accounts.last().and_then(|a| a.account.as_ref()).map(|a| a.id.clone());
        let last = last.filter(|_| page.more);
        self.pages.push((last.clone().unwrap_or_default(), page.position));
        for told in page.accounts {
            self.account(told);
        }
        for h in page.house {
            let (house, asset) = (h.house(), h.asset);
            // An amount that cannot be read is none that fits.
            let amount = h.amount.parse().unwrap_or(i128::MAX);
            self.house.insert((house_name(house, &asset).unwrap_or_default(), asset), amount);
        }
        last
    }

    fn account(&mut self, told: v1::ImageAccount) {
        let account = told.account.unwrap_or_default();
        let sum = |of: fn(&v1::ImageHold) -> i64| told.holds.iter().map(|h| i128::from(of(h))).sum::<i128>();
        let shares: i128 = told.holdings.iter().map(|h| i128::from(h.held_e4)).sum();
        let fits =
            sum(|h| h.cash_micros) == i128::from(account.held_micros) && sum(|h| h.shares_e4) == shares;
        let check = self.holds.get_or_insert_with(|| Check::new("held = sum of the holds of open orders"));
        check.look(fits, || format!("account {}", account.id));
        self.set_cash(&account);
        for holding in &told.holdings {
            self.set_shares(&account.id, holding);
        }
        self.open.extend(told.holds.into_iter().map(|h| v1::OpenHold {
            order_id: h.order_id,
            cash_micros: h.cash_micros,
            shares_e4: h.shares_e4,
        }));
    }

    fn set_cash(&mut self, a: &v1::Account) {
        let amounts = (i128::from(a.balance_micros), a.held_micros, 0, 0);
        self.clients.entry(a.id.clone()).or_default().insert(a.currency.clone(), amounts);
    }

    fn set_shares(&mut self, account: &str, h: &v1::Holding) {
        let gained = if h.quantity_e4 == 0 { 0 } else { h.realized_pnl_micros };
        let amounts = (i128::from(h.quantity_e4), h.held_e4, h.cost_micros, gained);
        self.clients.entry(account.to_owned()).or_default().insert(h.symbol.clone(), amounts);
    }

    /// The position at which an account was read.
    fn read_at(&self, account: &str) -> u64 {
        let page = self.pages.iter().find(|(last, _)| last.is_empty() || account <= last.as_str());
        page.map_or(0, |(_, position)| *position)
    }

    /// The first and the last position at which something was read.
    fn span(&self) -> (u64, u64) {
        let positions = || self.pages.iter().map(|(_, position)| *position);
        (positions().min().unwrap_or(0), positions().max().unwrap_or(0))
    }

    /// Takes a fact that follows what was read.
    fn fact(&mut self, fact: &v1::Fact) {
        for update in &fact.balances {
            let account = update.account.as_ref();
            let id = account.map(|a| &a.id).or(update.holding.as_ref().map(|h| &h.account_id));
            let Some(id) = id.filter(|id| fact.position > self.read_at(id)).cloned() else { continue };
            if let Some(account) = account {
                self.set_cash(account);
            }
            if let Some(holding) = &update.holding {
                self.set_shares(&id, holding);
            }
        }
        // The house is on the first page.
        if self.pages.first().is_some_and(|(_, position)| fact.position > *position) {
            for p in fact.postings.iter().filter(|p| p.account_id.is_empty()) {
                let name = house_name(p.house(), &p.asset).unwrap_or_default();
                *self.house.entry((name, p.asset.clone())).or_default() += i128::from(p.amount);
            }
        }
    }

    /// Balances that are other ones here than there.
    fn compare(mut self, s: &Standing) -> Check {
        let name = |names: &HashMap<i64, String>, key: i64| names.get(&key).cloned().unwrap_or_default();
        let mut check = Check::new("every balance, hold, cost and gain is the core's");
        for b in &s.balances {
            let (account, asset) = (name(&s.accounts, b.account), name(&s.assets, b.asset));
            let there = self.clients.get_mut(&account).and_then(|of| of.remove(&asset)).unwrap_or_default();
            let gained = if b.posted == 0 { 0 } else { b.realized };
            let fits = there == (i128::from(b.posted), b.held, b.cost, gained);
            check.look(fits, || format!("{asset} of {account}"));
        }
        for (account, asset, posted) in &s.house {
            let key = (name(&s.accounts, *account), name(&s.assets, *asset));
            let fits = self.house.remove(&key).unwrap_or(0) == *posted;
            check.look(fits, || format!("{} of {}", key.1, key.0));
        }
        for (account, left) in &self.clients {
            for (asset, _) in left.iter().filter(|(_, there)| **there != (0, 0, 0, 0)) {
                check.find(format!("{asset} of {account}, which the books lack"));
            }
        }
        for ((account, asset), _) in self.house.iter().filter(|(_, there)| **there != 0) {
            check.find(format!("{asset} of {account}, which the books lack"));
        }
        check
    }
}

/// What an audit knows already: the next one goes on behind it.
#[derive(Debug, Clone, Default)]
struct Progress {
    scan: Scan,
    told: Option<Told>,
}

/// Sums and invariants of the whole books as they stand now.
pub async fn scan(db: &Db) -> Result<(v1::AuditReply, Arc<Standing>)> {
    let standing = Arc::new(db.read(|tx| Ok(store::standing(tx, true)?)).await?);
    let mut scan = Scan::default();
    go_on(db, &mut scan, &standing).await?;
    Ok((scan.report(&standing), standing))
}

/// What in the books does not add up, in one sentence.
pub fn wrong(found: &v1::AuditReply) -> Option<String> {
    let told = [
        (found.chain_breaks, "breaks of the ledger's chain"),
        (found.unbalanced_transactions, "ledger transactions that do not sum to zero"),
        (found.balance_mismatches, "balances that are not the sum of their postings"),
        (found.negative_available, "balances below what is held"),
    ];
    let told: Vec<String> =
        told.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    (!told.is_empty())
        .then(|| format!("the books do not add up at position {}: {}", found.position, told.join(", ")))
}

/// Takes what is behind the rows that a scan knows.
async fn go_on(db: &Db, scan: &mut Scan, standing: &Arc<Standing>) -> Result<()> {
    let terms = standing.terms();
    scan.begin(standing);
    while scan.until < standing.position {
        let page = ledger_page(db, standing, scan.until, standing.position, PAGE).await?;
        scan.page(&terms, page);
    }
    Ok(())
}

async fn ledger_page(
    db: &Db,
    standing: &Arc<Standing>,
    after: u64,
    until: u64,
    limit: u32,
) -> Result<LedgerPage> {
    let s = Arc::clone(standing);
    db.read(move |tx| Ok(store::ledger_page(tx, &s, after, until, limit)?)).await
}

impl Standing {
    fn terms(&self) -> Terms {
        Terms {
            rates: self.rates.iter().map(|(id, rate)| (*id, *rate)).collect(),
            fees: self.fees.iter().map(|(id, fees)| (*id, *fees)).collect(),
            listings: self.currencies.clone(),
            accounts: self.rows.iter().map(|(id, row)| (id.clone(), row.currency.clone())).collect(),
        }
    }
}

impl Api {
    /// The whole books, and what they hold against what the core holds and the facts tell.
    pub(super) async fn audit_all(&self) -> Result<v1::AuditReply> {
        self.audit_on(&mut Progress::default()).await
    }

    async fn audit_on(&self, progress: &mut Progress) -> Result<v1::AuditReply> {
        let image = self.image().await;
        let whole = progress.told.is_none();
        let standing = Arc::new(self.db.read(move |tx| Ok(store::standing(tx, whole)?)).await?);
        let trouble = self.walk(progress, &standing).await?;
        let mut reply = progress.scan.report(&standing);
        let compared = async {
            let mut image = image?;
            trouble.map_or(Ok(()), Err)?;
            self.bring(&mut image, standing.position).await?;
            Ok::<_, Error>(image)
        };
        match compared.await {
            Ok(mut image) => {
                reply.open_holds = std::mem::take(&mut image.open);
                let holds = image.holds.take();
                reply.hold_mismatches = holds.as_ref().map_or(0, Check::findings);
                let core = image.compare(&standing);
                reply.core_mismatches = core.findings();
                reply.holds_compared = true;
                let told = progress.told.iter().flat_map(|told| told.compare(&standing));
                reply.checks.extend(holds.into_iter().chain([core]).chain(told).map(Into::into));
                if let Some(told) = progress.told.as_mut().filter(|_| whole) {
                    told.forget_beside();
                }
            }
            Err(e) => tracing::warn!(error = %e, "an audit without what the core holds"),
        }
        Ok(reply)
    }

    /// What the core holds, as soon as the books are there.
    async fn image(&self) -> Result<Image> {
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        let mut image = Image::default();
        let mut after = Some(String::new());
        while let Some(after_account_id) = after {
            let request = v1::ImageRequest { after_account_id, limit: IMAGE_PAGE };
            after = image.page(engine.image(patient(request)).await?.into_inner());
        }
        self.follower.wait(image.span().1).await?;
        Ok(image)
    }

    /// Brings an image to a position of the books.
    async fn bring(&self, image: &mut Image, position: u64) -> Result<()> {
        let mut after = image.span().0;
        while after < position {
            let facts = facts_after(&self.ctx, after, position).await?;
            for fact in &facts {
                image.fact(fact);
            }
            after = facts.last().map_or(position, |fact| fact.position);
        }
        Ok(())
    }

    /// Reads the ledger behind the rows that are known, beside the facts that tell of them, each page once. Answers why the
    /// facts could not be read to the end; the ledger is.
    async fn walk(&self, progress: &mut Progress, standing: &Arc<Standing>) -> Result<Option<Error>> {
        let terms = standing.terms();
        let Progress { scan, told } = progress;
        scan.begin(standing);
        let mut trouble = match told {
            Some(_) => None,
            None => match facts_begin(&self.ctx).await {
                Ok(begins) => {
                    *told = Some(Told::new(begins.max(standing.origin_at)));
                    None
                }
                Err(e) => Some(e),
            },
        };
        loop {
            let told = told.as_mut().filter(|_| trouble.is_none());
            let known = told.as_ref().map_or(scan.until, |told| told.until);
            let after = known.min(scan.until);
            if after >= standing.position {
                return Ok(trouble);
            }
            let Some(told) = told.filter(|_| known == after) else {
                // Facts of before are no longer kept, or cannot be had now.
                let until = if known > after { known.min(standing.position) } else { standing.position };
                let page = ledger_page(&self.db, standing, after, until, PAGE).await?;
                scan.page(&terms, page);
                continue;
            };
            let facts = match facts_after(&self.ctx, after, standing.position).await {
                Ok(facts) => facts,
                Err(e) => {
                    trouble = Some(e);
                    continue;
                }
            };
            let limit = u32::try_from(facts.len() + 1).unwrap_or(u32::MAX);
            let last = facts.last().map_or(standing.position, |fact| fact.position);
            let page = ledger_page(&self.db, standing, after, last, limit).await?;
            told.page(&facts, &page.entries);
            if last > scan.until {
                scan.page(&terms, page);
            }
            scan.forget_ended(&facts);
        }
    }
}

/// Audits once a minute what is new and the balances, once a day everything, for the metrics; a finding is an error.
pub fn spawn(ctx: &Context, api: Api) {
    let progress = Arc::new(Mutex::new((Progress::default(), 0_u32)));
    ctx.tasks.every("audit of the books", Schedule::after(EVERY), move || {
        let (api, progress) = (api.clone(), Arc::clone(&progress));
        async move {
            let mut progress = progress.lock().await;
            if progress.1.is_multiple_of(WHOLE_EVERY) {
                progress.0 = Progress::default();
            }
            progress.1 = progress.1.wrapping_add(1);
            let reply = api.audit_on(&mut progress.0).await?;
            for check in &reply.checks {
                fafnir_platform::checks::publish(api.ctx.service, check);
            }
            Ok::<_, Error>(())
        }
    });
}
