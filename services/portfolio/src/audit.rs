//! The whole books against exchange-rules §6, and every balance against the core's at the same position.

use super::{
    api::Api,
    domain::ledger::{Hash, house_name},
    store::{self, LedgerPage, Standing},
};
use fafnir_platform::{
    db::Db,
    error::{Error, Result},
};
use fafnir_proto::v1;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Ledger rows read at a time.
const PAGE: u32 = 2_000;
/// Accounts of the engine's image read at a time.
const IMAGE_PAGE: u32 = 1_000;

/// What the ledger adds up to, page by page.
#[derive(Debug, Default)]
struct Scan {
    chain: Hash,
    transactions: u64,
    unbalanced: u64,
    chain_breaks: u64,
    /// By the account's id or name, and the asset's code.
    sums: HashMap<(String, String), i128>,
}

impl Scan {
    fn page(&mut self, page: LedgerPage) {
        self.chain_breaks += page.orphans;
        for (entry, hash) in page.entries {
            self.transactions += 1;
            self.unbalanced += u64::from(!entry.is_balanced());
            self.chain_breaks += u64::from(entry.hash_after(&self.chain) != hash);
            // A changed row is counted once, not with all that follow.
            self.chain = hash;
            for p in entry.postings {
                *self.sums.entry((p.account, p.asset)).or_default() += i128::from(p.amount);
            }
        }
    }

    /// Compares the balances with what the ledger adds up to.
    fn report(mut self, s: &Standing) -> v1::AuditReply {
        let name = |names: &HashMap<i64, String>, key: i64| names.get(&key).cloned().unwrap_or_default();
        let clients = s.balances.iter().map(|b| (b.account, b.asset, i128::from(b.posted)));
        let mut assets = BTreeMap::<String, i128>::new();
        let mut balance_mismatches = 0;
        for (account, asset, posted) in clients.chain(s.house.iter().copied()) {
            let asset = name(&s.assets, asset);
            *assets.entry(asset.clone()).or_default() += posted;
            let added_up = self.sums.remove(&(name(&s.accounts, account), asset)).unwrap_or(0);
            balance_mismatches += u64::from(added_up != posted);
        }
        balance_mismatches += self.sums.values().filter(|sum| **sum != 0).count() as u64;
        let narrow = |sum: i128| i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        v1::AuditReply {
            sums: assets.into_iter().map(|(asset, sum)| v1::AssetSum { asset, sum: narrow(sum) }).collect(),
            transactions: self.transactions,
            unbalanced_transactions: self.unbalanced,
            negative_available: s.balances.iter().filter(|b| b.held < 0 || b.posted < b.held).count() as u64,
            balance_mismatches,
            chain_breaks: self.chain_breaks + u64::from(self.chain != s.chain),
            position: s.position,
            ..v1::AuditReply::default()
        }
    }
}

/// What is there of an asset, and what of it is held.
type Amounts = (i128, i64);

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
    mismatches: u64,
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
        self.mismatches += u64::from(!fits);
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
        let amounts = (i128::from(a.balance_micros), a.held_micros);
        self.clients.entry(a.id.clone()).or_default().insert(a.currency.clone(), amounts);
    }

    fn set_shares(&mut self, account: &str, h: &v1::Holding) {
        let amounts = (i128::from(h.quantity_e4), h.held_e4);
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
    fn differences(mut self, s: &Standing) -> u64 {
        let name = |names: &HashMap<i64, String>, key: i64| names.get(&key).cloned().unwrap_or_default();
        let mut differ = 0;
        for b in &s.balances {
            let (account, asset) = (name(&s.accounts, b.account), name(&s.assets, b.asset));
            let there = self.clients.get_mut(&account).and_then(|of| of.remove(&asset)).unwrap_or_default();
            differ += u64::from(there != (i128::from(b.posted), b.held));
        }
        for (account, asset, posted) in &s.house {
            let key = (name(&s.accounts, *account), name(&s.assets, *asset));
            differ += u64::from(self.house.remove(&key).unwrap_or(0) != *posted);
        }
        let left = self.clients.values().flat_map(HashMap::values).filter(|there| **there != (0, 0));
        differ + left.count() as u64 + self.house.values().filter(|there| **there != 0).count() as u64
    }
}

/// Sums and invariants of the whole books as they stand now.
pub async fn scan(db: &Db) -> Result<(v1::AuditReply, Arc<Standing>)> {
    let standing = Arc::new(db.read(|tx| Ok(store::standing(tx)?)).await?);
    let mut scan = Scan::default();
    let mut after = 0;
    while after < standing.position {
        let s = Arc::clone(&standing);
        let page = db.read(move |tx| Ok(store::ledger_page(tx, &s, after, PAGE)?)).await?;
        after = page.until;
        scan.page(page);
    }
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

impl Api {
    /// The whole books, and what they hold against what the core holds.
    pub(super) async fn audit_all(&self) -> Result<v1::AuditReply> {
        let image = self.image().await;
        let (mut reply, standing) = scan(&self.db).await?;
        let compared = async {
            let mut image = image?;
            self.bring(&mut image, standing.position).await?;
            Ok::<_, Error>(image)
        };
        match compared.await {
            Ok(mut image) => {
                reply.open_holds = std::mem::take(&mut image.open);
                reply.hold_mismatches = image.mismatches;
                reply.core_mismatches = image.differences(&standing);
                reply.holds_compared = true;
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
            after = image.page(engine.image(request).await?.into_inner());
        }
        self.follower.wait(image.span().1).await?;
        Ok(image)
    }

    /// Brings an image to a position of the books.
    async fn bring(&self, image: &mut Image, position: u64) -> Result<()> {
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        let mut after = image.span().0;
        while after < position {
            let request = v1::FactsRequest { after, ..Default::default() };
            let facts = engine.facts(request).await?.into_inner().facts;
            if facts.first().is_none_or(|fact| fact.position != after + 1) {
                return Err(Error::internal(format!("the facts after position {after} are not there")));
            }
            for fact in facts.iter().filter(|fact| fact.position <= position) {
                image.fact(fact);
            }
            after = facts.last().map_or(position, |fact| fact.position);
        }
        Ok(())
    }
}
