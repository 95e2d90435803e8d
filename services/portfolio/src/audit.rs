//! The whole books against exchange-rules §6, and what is held against the engine's image at the same position.

use super::{
    api::Api,
    domain::ledger::Hash,
    store::{self, LedgerPage, Standing},
};
use fafnir_platform::{db::Db, error::Result};
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

/// What the engine holds at a position.
#[derive(Debug, Default)]
struct Image {
    position: u64,
    /// By account and asset.
    held: HashMap<(String, String), i64>,
    open: Vec<v1::OpenHold>,
    /// Accounts whose held amounts are not the sum of their orders' holds.
    mismatches: u64,
}

impl Image {
    fn account(&mut self, told: v1::ImageAccount) {
        let account = told.account.unwrap_or_default();
        let sum = |of: fn(&v1::ImageHold) -> i64| told.holds.iter().map(|h| i128::from(of(h))).sum::<i128>();
        let shares: i128 = told.holdings.iter().map(|h| i128::from(h.held_e4)).sum();
        let fits =
            sum(|h| h.cash_micros) == i128::from(account.held_micros) && sum(|h| h.shares_e4) == shares;
        self.mismatches += u64::from(!fits);
        self.held.insert((account.id.clone(), account.currency), account.held_micros);
        for h in told.holdings {
            self.held.insert((account.id.clone(), h.symbol), h.held_e4);
        }
        self.open.extend(told.holds.into_iter().map(|h| v1::OpenHold {
            order_id: h.order_id,
            cash_micros: h.cash_micros,
            shares_e4: h.shares_e4,
        }));
    }

    /// Balances of which something else is held here than there.
    fn differences(mut self, s: &Standing) -> u64 {
        let differs = s.balances.iter().filter(|b| {
            let key = s.accounts.get(&b.account).cloned().zip(s.assets.get(&b.asset).cloned());
            b.held != key.and_then(|key| self.held.remove(&key)).unwrap_or(0)
        });
        let differs = differs.count() as u64;
        differs + self.held.values().filter(|held| **held != 0).count() as u64 + self.mismatches
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

impl Api {
    /// The whole books, and what they hold against what the engine holds.
    pub(super) async fn audit_all(&self) -> Result<v1::AuditReply> {
        let image = self.image().await.unwrap_or_else(|e| {
            tracing::warn!(error = %e, "an audit without the engine's image");
            None
        });
        let (mut reply, standing) = scan(&self.db).await?;
        if let Some(mut image) = image.filter(|i| i.position == standing.position) {
            reply.open_holds = std::mem::take(&mut image.open);
            reply.hold_mismatches = image.differences(&standing);
            reply.holds_compared = true;
        }
        Ok(reply)
    }

    /// What the engine holds, as soon as the books are there; `None` where it went on between two pages.
    async fn image(&self) -> Result<Option<Image>> {
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        let mut image = Image::default();
        let mut after_account_id = String::new();
        loop {
            let request = v1::ImageRequest { after_account_id: after_account_id.clone(), limit: IMAGE_PAGE };
            let page = engine.image(request).await?.into_inner();
            if !after_account_id.is_empty() && page.position != image.position {
                return Ok(None);
            }
            image.position = page.position;
            let last = page.accounts.last().and_then(|a| a.account.as_ref()).map(|a| a.id.clone());
            page.accounts.into_iter().for_each(|a| image.account(a));
            match last {
                Some(last) if page.more => after_account_id = last,
                _ => break,
            }
        }
        self.follower.wait(image.position).await?;
        Ok(Some(image))
    }
}
