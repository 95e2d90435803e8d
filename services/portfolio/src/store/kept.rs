//! What figures of any moment are made from, kept as the facts come: prices by the minute, flows with the worth before
//! them, what was traded by the day, what each posting left.

use super::books::{Batch, impossible, narrow};
use crate::domain::{
    AccountKey, AssetKey, Currency,
    gains::Traded,
    ledger::{Entry, POSTINGS_MAX},
    period::MINUTE_US,
    valuation::{Rate, value_micros},
};
use fafnir_platform::{
    clock::DAY_US,
    db::{self, Tx, Value, many},
    error::Result,
    params,
};
use fafnir_proto::v1;
use std::collections::{BTreeMap, HashMap};

const PRICE_COLUMNS: usize = 5;
const FLOW_COLUMNS: usize = 4;

/// A symbol's price in a minute, with the ledger rows of its first and last trade there.
#[derive(Debug, Clone, Copy)]
struct Price {
    price_e4: i64,
    first: i64,
    last: i64,
}

/// What a batch adds to the kept figures.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The last minute that has a ledger row; `None` where there is none.
    last_minute: Option<i64>,
    minutes: Vec<Value>,
    prices: BTreeMap<(AssetKey, i64), Price>,
    /// As far as they were asked for; `None`: there is none yet.
    last_prices: HashMap<AssetKey, Option<i64>>,
    /// Currency of each listing, as far as it was asked for.
    currencies: HashMap<AssetKey, Option<Currency>>,
    usd_cad: Option<i64>,
    flows: Vec<Value>,
    traded: BTreeMap<(AccountKey, AssetKey, i64), Traded>,
}

/// A client's account as a fact tells it.
#[derive(Debug, Clone, Copy)]
struct Side {
    key: AccountKey,
    currency: Currency,
}

impl Kept {
    pub(super) fn begin(tx: &mut dyn Tx) -> Result<Self, db::Error> {
        let last_minute = tx.query_one("SELECT COALESCE(MAX(minute), -1) FROM minute", &[])?.get(0)?;
        Ok(Self { last_minute: Some(last_minute).filter(|m| *m >= 0), ..Self::default() })
    }

    /// What `after` a posting there is of its asset, as its fact tells it: what its account has in the end, less what the
    /// later lines of the fact moved.
    pub(super) fn balance_after(fact: &v1::Fact, number: usize) -> Result<Option<i64>> {
        let line = &fact.postings[number];
        if line.account_id.is_empty() {
            return Ok(None);
        }
        let told = fact.balances.iter().find_map(|b| {
            let cash = b.account.as_ref().filter(|a| a.id == line.account_id && a.currency == line.asset);
            let shares =
                || b.holding.as_ref().filter(|h| h.account_id == line.account_id && h.symbol == line.asset);
            cash.map(|a| a.balance_micros).or_else(|| shares().map(|h| h.quantity_e4))
        });
        let told = told.ok_or_else(|| impossible(fact, "moves something and does not tell what is left"))?;
        let later = fact.postings[number + 1..].iter();
        let later = later.filter(|p| p.account_id == line.account_id && p.asset == line.asset);
        let after = later.fold(i128::from(told), |sum, p| sum - i128::from(p.amount));
        Ok(Some(i64::try_from(after).map_err(|_| impossible(fact, "leaves more than 64 bits"))?))
    }

    /// Writes what was gathered.
    pub(super) fn write(&self, tx: &mut dyn Tx) -> Result<()> {
        many::insert(tx, "INSERT INTO minute (minute, first)", 2, "", &self.minutes)?;
        let mut prices = Vec::with_capacity(self.prices.len() * PRICE_COLUMNS);
        for ((asset, minute), p) in &self.prices {
            prices.extend_from_slice(params![*asset, *minute, p.price_e4, p.first, p.last]);
        }
        many::insert(
            tx,
            "INSERT INTO price (asset, minute, price_e4, first, last)",
            PRICE_COLUMNS,
            "ON CONFLICT (asset, minute) DO UPDATE SET price_e4 = excluded.price_e4, last = excluded.last",
            &prices,
        )?;
        many::insert(tx, "INSERT INTO flow (account, id, amount, before)", FLOW_COLUMNS, "", &self.flows)?;
        for ((account, asset, day), more) in &self.traded {
            let key = params![*account, *asset, *day];
            let sql = "SELECT body FROM traded WHERE account = ?1 AND asset = ?2 AND day = ?3";
            let before = tx.query_opt(sql, key)?.map(|row| traded(&row.get::<Vec<u8>>(0)?)).transpose()?;
            let body = (before.unwrap_or_default() + *more).bytes();
            tx.execute(
                "INSERT INTO traded (account, asset, day, body) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (account, asset, day) DO UPDATE SET body = excluded.body",
                params![*account, *asset, *day, body],
            )?;
        }
        Ok(())
    }
}

/// Reads the stored form.
pub fn traded(bytes: &[u8]) -> Result<Traded, db::Error> {
    Traded::read(bytes).ok_or_else(|| db::Error::Statement("what was traded on a day cannot be read".into()))
}

impl Batch<'_> {
    /// The flows of a fact that moves something without a trade: before its balances are taken.
    pub(super) fn flows(&mut self, fact: &v1::Fact) -> Result<()> {
        for (number, line) in (0i64..).zip(&fact.postings) {
            if line.account_id.is_empty() {
                continue;
            }
            let Some(side) = self.side(fact, &line.account_id)? else { continue };
            let before = self.worth(side)?;
            let amount = if Currency::parse(&line.asset) == Some(side.currency) {
                Some(line.amount)
            } else {
                let asset = self.asset(&line.asset)?;
                self.share_value(asset, line.amount, side.currency)?.and_then(|v| i64::try_from(v).ok())
            };
            let id = narrow(fact)? * POSTINGS_MAX as i64 + number;
            self.kept.flows.extend_from_slice(params![side.key, id, amount, before]);
        }
        Ok(())
    }

    /// Takes the price of a trade, what its sides traded, and what moved without one.
    pub(super) fn keep(&mut self, fact: &v1::Fact, entry: &Entry) -> Result<()> {
        let minute = entry.time_us.div_euclid(MINUTE_US);
        if self.kept.last_minute.is_none_or(|last| minute > last) {
            self.kept.last_minute = Some(minute);
            self.kept.minutes.extend_from_slice(params![minute, entry.id]);
        }
        let is_trade = fact.kind() == v1::FactKind::Executed;
        if let Some(symbol) = entry.symbol.as_deref().filter(|_| is_trade) {
            let asset = self.asset(symbol)?;
            let (price_e4, id) = (entry.price_e4, entry.id);
            let price =
                self.kept.prices.entry((asset, minute)).or_insert(Price { price_e4, first: id, last: id });
            (price.price_e4, price.last) = (price_e4, id);
            self.kept.last_prices.insert(asset, Some(price_e4));
        }
        for line in &fact.postings {
            if line.account_id.is_empty() || Currency::parse(&line.asset).is_some() {
                continue;
            }
            let key = self.account(fact, &line.account_id)?;
            let asset = self.asset(&line.asset)?;
            let of_account = fact
                .postings
                .iter()
                .filter(|p| p.account_id == line.account_id && Currency::parse(&p.asset).is_some());
            let fees: i128 = of_account
                .clone()
                .filter(|p| p.role() == v1::PostingRole::Fee)
                .map(|p| -i128::from(p.amount))
                .sum();
            let cash: i128 = of_account.map(|p| i128::from(p.amount)).sum();
            let traded = moved(is_trade, line.amount, cash, fees, entry.cost);
            let day = entry.time_us.div_euclid(DAY_US);
            let of_day = self.kept.traded.entry((key, asset, day)).or_default();
            *of_day = *of_day + traded;
        }
        Ok(())
    }

    /// A listing's currency and its first known price.
    pub(super) fn listing(&mut self, told: &v1::Instrument) -> Result<()> {
        let asset = self.asset(&told.symbol)?;
        self.kept.currencies.insert(asset, Currency::parse(&told.currency));
        let first = if self.price(asset)?.is_some() { 0 } else { told.previous_close_e4 };
        self.tx.execute(
            "INSERT INTO listing (asset, currency, first_e4) VALUES (?1, ?2, ?3) ON CONFLICT (asset) DO UPDATE SET \
             currency = excluded.currency, \
             first_e4 = CASE WHEN listing.first_e4 = 0 THEN excluded.first_e4 ELSE listing.first_e4 END",
            params![asset, &told.currency, first],
        )?;
        if first > 0 {
            self.kept.last_prices.insert(asset, Some(first));
        }
        Ok(())
    }

    /// The exchange rate from now on.
    pub(super) fn rate(&mut self, usd_cad: i64) {
        self.kept.usd_cad = Some(usd_cad);
    }

    /// A client's account with its currency, as a fact tells it.
    fn side(&mut self, fact: &v1::Fact, id: &str) -> Result<Option<Side>> {
        let told = fact.balances.iter().filter_map(|b| b.account.as_ref()).find(|a| a.id == id);
        let Some(currency) = told.and_then(|a| Currency::parse(&a.currency)) else { return Ok(None) };
        // An account that nobody knows yet had nothing.
        Ok(self.known(id)?.map(|key| Side { key, currency }))
    }

    /// What an account is worth now; `None` while a price of its shares is not known.
    fn worth(&mut self, side: Side) -> Result<Option<i64>> {
        let mut assets: BTreeMap<AssetKey, i64> = BTreeMap::new();
        for row in self.tx.query("SELECT asset, posted FROM balance WHERE account = ?1", params![side.key])? {
            assets.insert(row.get(0)?, row.get(1)?);
        }
        for ((_, asset), (balance, _)) in self.balances.range((side.key, 0)..(side.key + 1, 0)) {
            assets.insert(*asset, balance.posted);
        }
        let mut worth = 0i128;
        for (asset, posted) in assets {
            worth += if asset == side.currency.asset() {
                i128::from(posted)
            } else {
                match self.share_value(asset, posted, side.currency)? {
                    Some(value) => value,
                    None if posted == 0 => 0,
                    None => return Ok(None),
                }
            };
        }
        Ok(Some(i64::try_from(worth).unwrap_or(i64::MAX)))
    }

    fn share_value(&mut self, asset: AssetKey, quantity: i64, currency: Currency) -> Result<Option<i128>> {
        let Some(price_e4) = self.price(asset)? else { return Ok(None) };
        let listing = self.listed_in(asset)?;
        let usd_cad = self.usd_cad()?;
        Ok(Some(value_micros(quantity, price_e4, Rate::between(listing, currency, usd_cad))))
    }

    fn price(&mut self, asset: AssetKey) -> Result<Option<i64>, db::Error> {
        if let Some(known) = self.kept.last_prices.get(&asset) {
            return Ok(*known);
        }
        let sql = "SELECT price_e4 FROM price WHERE asset = ?1 ORDER BY minute DESC LIMIT 1";
        let traded = self.tx.query_opt(sql, params![asset])?;
        let first = "SELECT first_e4 FROM listing WHERE asset = ?1 AND first_e4 > 0";
        let row = match traded {
            Some(row) => Some(row),
            None => self.tx.query_opt(first, params![asset])?,
        };
        let price = row.map(|row| row.get(0)).transpose()?;
        self.kept.last_prices.insert(asset, price);
        Ok(price)
    }

    fn listed_in(&mut self, asset: AssetKey) -> Result<Option<Currency>, db::Error> {
        if let Some(known) = self.kept.currencies.get(&asset) {
            return Ok(*known);
        }
        let row = self.tx.query_opt("SELECT currency FROM listing WHERE asset = ?1", params![asset])?;
        let code: Option<String> = row.map(|row| row.get(0)).transpose()?;
        let currency = code.as_deref().and_then(Currency::parse);
        self.kept.currencies.insert(asset, currency);
        Ok(currency)
    }

    fn usd_cad(&mut self) -> Result<i64, db::Error> {
        if let Some(known) = self.kept.usd_cad {
            return Ok(known);
        }
        let newest = super::usd_cad(self.tx)?;
        self.kept.usd_cad = Some(newest);
        Ok(newest)
    }
}

/// What one side's shares of a ledger transaction are; `cost` is what went with them when they were sold, or came or went
/// with them without a trade.
pub(super) fn moved(is_trade: bool, shares: i64, cash: i128, fees: i128, cost: i64) -> Traded {
    let (shares, cost) = (i128::from(shares), i128::from(cost));
    let nothing = Traded::default();
    match (is_trade, shares > 0) {
        (true, true) => Traded { bought: shares, paid: -cash, fees, trades: 1, ..nothing },
        (true, false) => Traded { sold: -shares, proceeds: cash, cost, fees, trades: 1, ..nothing },
        (false, true) => Traded { given: shares, given_cost: cost, ..nothing },
        (false, false) => Traded { taken: -shares, taken_cost: -cost, ..nothing },
    }
}
