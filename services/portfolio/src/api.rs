//! The RPCs of portfolio-service: parse → operation in one transaction → reply.

use super::{
    domain::{Currency, Kind, hold::Side},
    events::{Publisher, Settler},
    operations::{self, Change, Endowment, NewHold, Rules},
    settlement::SETTLED,
    store::{self, HoldRow, NewAccount, Repeated, Session},
    wire,
};
use fafnir_platform::{
    Context, Refusal, caller,
    db::{Db, Tx, inbox},
    error::{Error, Result},
};
use fafnir_proto::{
    id::{self, AccountId, OrderId, TransactionId, UserId},
    reason::Reason,
    v1::{
        Account, AccountRequest, AdjustHoldRequest, AssetSum, AuditReply, CreateAccountRequest,
        DefaultAccountRequest, DepositReply, DepositRequest, Empty, EndowReply, EndowRequest, HoldReply,
        HoldRequest, Holding, HoldingReply, HoldingRequest, HoldingsReply, ListAccountsReply, OpenHold,
        PerformanceReply, PerformanceRequest, PortfolioStatusReply, PortfolioUpdate, PortfolioUpdatesReply,
        ReleaseHoldRequest, SeedAccountReply, SeedAccountRequest, StatementReply, StatementRequest,
        SymbolPosition, SymbolRequest, TransactionsReply, TransactionsRequest, TransferRequest,
        UpdatesSinceRequest, UserRequest, ValuationReply, ValuationRequest, ValueRequest, ValuedHolding,
        WatchlistItem, WatchlistReply, WatchlistRequest, portfolio_server::Portfolio,
    },
};
use fafnir_rules::symbol::Symbol;
use prost::Message;
use sha2::{Digest as _, Sha256};
use std::{str::FromStr, sync::Arc};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Longest idempotency key in bytes.
const KEY_LEN_MAX: usize = 128;
/// Lines of one page of a statement, and what an unnamed limit means.
const TRANSACTIONS_MAX: u32 = 500;
const TRANSACTIONS_DEFAULT: u32 = 100;
const UPDATES_MAX: u32 = 500;
/// Symbols on one watchlist.
const WATCHLIST_MAX: usize = 500;
/// Open holds that an audit lists.
const OPEN_HOLDS_MAX: u32 = 50_000;

/// The service behind the RPCs.
#[derive(Debug, Clone)]
pub struct Api {
    pub ctx: Context,
    pub db: Db,
    pub rules: Rules,
    pub publisher: Publisher,
    pub settler: Arc<Settler>,
}

pub(super) fn id<T: FromStr<Err = id::Malformed>>(field: &str, text: &str) -> Result<T> {
    Ok(text.parse().map_err(|e| Refusal::invalid(Reason::ID_MALFORMED, format!("{field} {e}")))?)
}

fn symbol(text: &str) -> Result<String> {
    let symbol =
        Symbol::parse(text).map_err(|e| Refusal::invalid(Reason::SYMBOL_MALFORMED, e.to_string()))?;
    Ok(symbol.to_string())
}

fn currency(text: &str) -> Result<Currency> {
    Ok(Currency::parse(text)
        .ok_or_else(|| Refusal::invalid(Reason::CURRENCY_UNKNOWN, "currency must be USD or CAD"))?)
}

fn client_kind(number: i32) -> Result<Kind> {
    let kind = Kind::of_number(number).filter(|k| *k != Kind::House);
    Ok(kind.ok_or_else(|| {
        Refusal::invalid(Reason::ACCOUNT_TYPE_UNKNOWN, "type must be INVESTMENT, SAVINGS or CHEQUING")
    })?)
}

fn side(number: i32) -> Result<Side> {
    Ok(Side::of_number(number)
        .ok_or_else(|| Refusal::invalid(Reason::SIDE_UNKNOWN, "side must be BUY or SELL"))?)
}

fn check_key(key: &str) -> Result<()> {
    if key.len() <= KEY_LEN_MAX {
        return Ok(());
    }
    let sentence = format!("the idempotency key must have at most {KEY_LEN_MAX} bytes");
    Err(Refusal::invalid(Reason::IDEMPOTENCY_KEY_TOO_LONG, sentence).into())
}

/// An idempotency key with the request that it stands for.
#[derive(Debug, Clone)]
struct Key {
    owner: String,
    key: String,
    request: Vec<u8>,
}

impl Key {
    /// `None` without a key: each request counts then.
    fn new(owner: String, key: &str, operation: &str, request: &impl Message) -> Result<Option<Self>> {
        check_key(key)?;
        if key.is_empty() {
            return Ok(None);
        }
        let mut hash = Sha256::new_with_prefix(operation);
        hash.update(request.encode_to_vec());
        Ok(Some(Self { owner, key: key.to_owned(), request: hash.finalize().to_vec() }))
    }

    /// The answer that was given before.
    fn answered(this: Option<&Self>, tx: &mut dyn Tx) -> Result<Option<String>> {
        let Some(this) = this else { return Ok(None) };
        match store::idempotency(tx, &this.owner, &this.key, &this.request)? {
            Repeated::No => Ok(None),
            Repeated::Same(answer) => Ok(Some(answer)),
            Repeated::Different => {
                let sentence = format!("idempotency key {:?} was used for another request", this.key);
                Err(Refusal::exists(Reason::IDEMPOTENCY_KEY_REUSED, sentence).into())
            }
        }
    }

    fn remember(this: Option<&Self>, s: &mut Session<'_>, answer: &str) -> Result<()> {
        if let Some(this) = this {
            store::idempotency_put(s.tx, &this.owner, &this.key, &this.request, answer, s.now_us)?;
        }
        Ok(())
    }
}

impl Api {
    /// Runs an operation in one transaction and tells what it changed after the commit.
    async fn change<T, F>(&self, mut work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Session<'_>) -> Result<T> + Send + 'static,
    {
        let now_us = self.ctx.clock.now_us();
        let (answer, outcome) = self
            .db
            .write(move |tx| {
                let mut s = Session::new(tx, now_us);
                let answer = work(&mut s)?;
                Ok((answer, s.finish()?))
            })
            .await?;
        self.publisher.queue(outcome);
        Ok(answer)
    }

    async fn account_create(&self, user: UserId, mut r: CreateAccountRequest) -> Result<Account> {
        let (kind, currency) = (client_kind(r.r#type)?, currency(&r.currency)?);
        let key = std::mem::take(&mut r.idempotency_key);
        r.user_id = user.to_string();
        let key = Key::new(user.to_string(), &key, "account", &r)?;
        let new = NewAccount { id: AccountId::new(Uuid::new_v4()), user, kind, currency };
        let opening = self.rules.opening_micros;
        self.change(move |s| {
            if let Some(answer) = Key::answered(key.as_ref(), s.tx)? {
                let account = operations::own_account(s.tx, user, id("account_id", &answer)?)?;
                let cash = store::cash(s.tx, &account)?;
                return Ok(wire::account(&account, &cash));
            }
            let account = operations::account_create(s, new, opening)?;
            Key::remember(key.as_ref(), s, &account.id.to_string())?;
            let cash = s.balance(account.key, account.currency.asset())?;
            Ok(wire::account(&account, &cash))
        })
        .await
    }

    async fn deposit_make(&self, user: UserId, mut r: DepositRequest) -> Result<DepositReply> {
        let account = id("account_id", &r.account_id)?;
        let key = std::mem::take(&mut r.idempotency_key);
        r.user_id = user.to_string();
        let key = Key::new(user.to_string(), &key, "deposit", &r)?;
        let reply = |balance: i64, posting: i64| DepositReply {
            new_balance_micros: balance,
            transaction_id: wire::transaction_id(posting).to_string(),
        };
        self.change(move |s| {
            if let Some(answer) = Key::answered(key.as_ref(), s.tx)? {
                let parts =
                    answer.split_once(' ').and_then(|(b, p)| Some((b.parse().ok()?, p.parse().ok()?)));
                let (balance, posting) =
                    parts.ok_or_else(|| Error::internal(format!("a deposit was answered {answer:?}")))?;
                return Ok(reply(balance, posting));
            }
            let (balance, posting) = operations::deposit(s, user, account, r.amount_micros, &r.currency)?;
            Key::remember(key.as_ref(), s, &format!("{balance} {posting}"))?;
            Ok(reply(balance, posting))
        })
        .await
    }

    async fn transfer_make(&self, user: UserId, mut r: TransferRequest) -> Result<Empty> {
        let (from, to) = (id("from_account_id", &r.from_account_id)?, id("to_account_id", &r.to_account_id)?);
        let key = std::mem::take(&mut r.idempotency_key);
        r.user_id = user.to_string();
        let key = Key::new(user.to_string(), &key, "transfer", &r)?;
        let rules = self.rules;
        self.change(move |s| {
            if Key::answered(key.as_ref(), s.tx)?.is_none() {
                operations::transfer(s, &rules, user, from, to, r.amount_micros, &r.currency)?;
                Key::remember(key.as_ref(), s, "")?;
            }
            Ok(Empty {})
        })
        .await
    }

    async fn hold_place(&self, user: UserId, r: HoldRequest) -> Result<HoldReply> {
        let side = side(r.side)?;
        let new = NewHold {
            order: id::<OrderId>("order_id", &r.order_id)?.uuid(),
            user,
            account: if r.account_id.is_empty() { None } else { Some(id("account_id", &r.account_id)?) },
            symbol: symbol(&r.symbol)?,
            side,
            quantity_e4: r.quantity_e4,
            price_e4: if side == Side::Buy { r.price_e4 } else { 0 },
            listing: currency(&r.currency)?,
        };
        let rules = self.rules;
        self.change(move |s| operations::hold_place(s, &rules, &new)).await.map(held)
    }

    async fn hold_adjust(&self, r: AdjustHoldRequest) -> Result<HoldReply> {
        let change = Change {
            order: id::<OrderId>("order_id", &r.order_id)?.uuid(),
            version: r.version,
            total_e4: r.quantity_e4,
            open_e4: r.open_quantity_e4,
            price_e4: r.price_e4,
            only_increase: r.only_increase,
            caught_up: false,
        };
        let adjusted = self.change(move |s| operations::hold_adjust(s, change)).await;
        match adjusted {
            // The caller may have seen an outcome that is not applied here yet.
            Err(Error::Refused(r)) if r.reason == Reason::REPLACE_PENDING => {
                self.settler.catch_up().await?;
                let change = Change { caught_up: true, ..change };
                self.change(move |s| operations::hold_adjust(s, change)).await.map(held)
            }
            adjusted => adjusted.map(held),
        }
    }

    async fn endow_make(&self, mut r: EndowRequest) -> Result<EndowReply> {
        let endowment = Endowment {
            account: id("account_id", &r.account_id)?,
            symbol: if r.quantity_e4 == 0 { String::new() } else { symbol(&r.symbol)? },
            quantity_e4: r.quantity_e4,
            cost_price_e4: r.cost_price_e4,
            currency: r.currency.clone(),
            amount_micros: r.amount_micros,
        };
        let key = std::mem::take(&mut r.key);
        let Some(key) = Key::new(String::new(), &key, "endow", &r)? else {
            return Err(Refusal::invalid(Reason::KEY_MISSING, "key must name the endowment").into());
        };
        let rules = self.rules;
        self.change(move |s| {
            if Key::answered(Some(&key), s.tx)?.is_some() {
                return Ok(EndowReply { applied: false });
            }
            operations::endow(s, &rules, &endowment)?;
            Key::remember(Some(&key), s, "")?;
            Ok(EndowReply { applied: true })
        })
        .await
    }

    async fn account_seed(&self, r: SeedAccountRequest) -> Result<SeedAccountReply> {
        let new = NewAccount {
            id: id("account_id", &r.account_id)?,
            user: id("user_id", &r.user_id)?,
            kind: client_kind(r.r#type)?,
            currency: currency(&r.currency)?,
        };
        self.change(move |s| match store::account_by_id(s.tx, new.id)? {
            None => {
                operations::account_create(s, new, 0)?;
                Ok(SeedAccountReply { created: true })
            }
            Some(a) if a.user == new.user && a.kind == new.kind && a.currency == new.currency => {
                Ok(SeedAccountReply { created: false })
            }
            Some(_) => {
                let sentence = format!("account_id {} is another account already", new.id);
                Err(Refusal::exists(Reason::ACCOUNT_EXISTS, sentence).into())
            }
        })
        .await
    }

    async fn watch(&self, user: UserId, text: &str) -> Result<Empty> {
        let symbol = symbol(text)?;
        let of = symbol.clone();
        if !self.db.read(move |tx| Ok(store::is_listed(tx, &of)?)).await? {
            // Listed a moment ago, perhaps: the owner knows.
            let request = SymbolRequest { symbol: symbol.clone() };
            let i = self.ctx.clients.stock(&self.ctx.system()).get_instrument(request).await?.into_inner();
            self.db
                .write(move |tx| Ok(store::instrument_put(tx, &i.symbol, &i.currency, i.version)?))
                .await?;
        }
        let now_us = self.ctx.clock.now_us();
        self.db
            .write(move |tx| {
                let list = store::watchlist(tx, user)?;
                if list.len() >= WATCHLIST_MAX && list.iter().all(|(s, _)| *s != symbol) {
                    let sentence = format!("a watchlist has at most {WATCHLIST_MAX} symbols");
                    return Err(Refusal::exhausted(Reason::WATCHLIST_FULL, sentence).into());
                }
                store::watch(tx, user, &symbol, now_us)?;
                Ok(Empty {})
            })
            .await
    }

    async fn transaction_list(&self, user: UserId, r: TransactionsRequest) -> Result<TransactionsReply> {
        let account = id("account_id", &r.account_id)?;
        let before = if r.before_id.is_empty() {
            i64::MAX
        } else {
            let sentence =
                || Refusal::invalid(Reason::ID_MALFORMED, "before_id must be the id of a transaction");
            wire::posting_of(&id::<TransactionId>("before_id", &r.before_id)?.uuid()).ok_or_else(sentence)?
        };
        let limit = match r.limit {
            0 => TRANSACTIONS_DEFAULT,
            limit => limit.min(TRANSACTIONS_MAX),
        };
        self.db
            .read(move |tx| {
                let account = operations::own_account(tx, user, account)?;
                let lines = store::lines(tx, &account, before, limit)?;
                Ok(TransactionsReply {
                    transactions: lines.iter().map(|l| wire::transaction(&account, l)).collect(),
                })
            })
            .await
    }

    async fn holding_list(&self, user: UserId, account: &str, only: Option<String>) -> Result<HoldingsReply> {
        let account = id("account_id", account)?;
        self.db
            .read(move |tx| {
                let account = operations::own_account(tx, user, account)?;
                let holdings = store::holdings(tx, &account, only.as_deref())?;
                let shown = holdings.iter().map(|(asset, code, b)| wire::holding(&account, *asset, code, b));
                Ok(HoldingsReply { holdings: shown.collect() })
            })
            .await
    }

    async fn holding_get(&self, user: UserId, account: &str, text: &str) -> Result<Holding> {
        let symbol = symbol(text)?;
        let mut found = self.holding_list(user, account, Some(symbol.clone())).await?.holdings;
        let nothing =
            || Refusal::not_found(Reason::HOLDING_NOT_FOUND, format!("the account holds no {symbol}"));
        Ok(found.pop().ok_or_else(nothing)?)
    }

    async fn updates(&self, user: UserId, r: UpdatesSinceRequest) -> Result<PortfolioUpdatesReply> {
        let after = i64::try_from(r.after_seq).unwrap_or(i64::MAX);
        let limit = if r.limit == 0 { UPDATES_MAX } else { r.limit.min(UPDATES_MAX) };
        let page = self.db.read(move |tx| Ok(store::updates_since(tx, user, after, limit)?)).await?;
        let decode = |payload: &Vec<u8>| {
            PortfolioUpdate::decode(payload.as_slice()).map_err(|e| Error::internal(e.to_string()))
        };
        Ok(PortfolioUpdatesReply {
            updates: page.payloads.iter().map(decode).collect::<Result<_>>()?,
            last_seq: page.last_seq as u64,
            more: page.more,
            reset: page.reset,
        })
    }

    async fn audit_all(&self) -> Result<AuditReply> {
        let audit = self.db.read(|tx| Ok(store::audit(tx, OPEN_HOLDS_MAX)?)).await?;
        let sums = audit.sums.into_iter().map(|(asset, sum)| AssetSum { asset, sum }).collect();
        let hold = |(order, cash_micros, shares_e4): store::OpenHold| OpenHold {
            order_id: order.to_string(),
            cash_micros,
            shares_e4,
        };
        Ok(AuditReply {
            sums,
            transactions: audit.transactions,
            unbalanced_transactions: audit.unbalanced,
            negative_available: audit.negative_available,
            hold_mismatches: audit.hold_mismatches,
            balance_mismatches: audit.balance_mismatches,
            open_holds: audit.open_holds.into_iter().map(hold).collect(),
            ..AuditReply::default()
        })
    }

    async fn status_now(&self) -> Result<PortfolioStatusReply> {
        self.db
            .read(|tx| {
                let position = |(symbol, seq)| SymbolPosition { symbol, seq };
                Ok(PortfolioStatusReply {
                    positions: inbox::positions(tx)?.into_iter().map(position).collect(),
                    settled: store::counter(tx, SETTLED)?,
                    dead_letters: inbox::dead_letter_count(tx)?,
                    ..PortfolioStatusReply::default()
                })
            })
            .await
    }
}

fn held((row, account): (HoldRow, super::domain::Account)) -> HoldReply {
    let (cash, shares) = match row.hold.side {
        Side::Buy => (row.held, 0),
        Side::Sell => (0, row.held),
    };
    HoldReply { held_cash_micros: cash, held_shares_e4: shares, account_id: account.id.to_string() }
}

fn reply<T>(answer: Result<T>) -> Result<Response<T>, Status> {
    Ok(Response::new(answer?))
}

#[tonic::async_trait]
impl Portfolio for Api {
    async fn create_account(&self, r: Request<CreateAccountRequest>) -> Result<Response<Account>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.account_create(user, r.into_inner()).await)
    }

    async fn list_accounts(&self, r: Request<UserRequest>) -> Result<Response<ListAccountsReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        let listed = self.db.read(move |tx| {
            let mut accounts = Vec::new();
            for account in store::accounts_of(tx, user)? {
                let cash = store::cash(tx, &account)?;
                accounts.push(wire::account(&account, &cash));
            }
            Ok(ListAccountsReply { accounts })
        });
        reply(listed.await)
    }

    async fn close_account(&self, r: Request<AccountRequest>) -> Result<Response<Account>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        let account = id("account_id", &r.get_ref().account_id)?;
        let closed = self.change(move |s| {
            let account = operations::own_account(s.tx, user, account)?;
            let account = operations::account_close(s, account)?;
            let cash = s.balance(account.key, account.currency.asset())?;
            Ok(wire::account(&account, &cash))
        });
        reply(closed.await)
    }

    async fn deposit(&self, r: Request<DepositRequest>) -> Result<Response<DepositReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.deposit_make(user, r.into_inner()).await)
    }

    async fn withdraw(
        &self,
        _: Request<fafnir_proto::v1::WithdrawRequest>,
    ) -> Result<Response<DepositReply>, Status> {
        Err(Status::unimplemented("withdraw"))
    }

    async fn close_user(&self, _: Request<UserRequest>) -> Result<Response<Empty>, Status> {
        Err(Status::unimplemented("close_user"))
    }

    async fn transfer(&self, r: Request<TransferRequest>) -> Result<Response<Empty>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.transfer_make(user, r.into_inner()).await)
    }

    async fn holdings(&self, r: Request<AccountRequest>) -> Result<Response<HoldingsReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.holding_list(user, &r.get_ref().account_id, None).await)
    }

    async fn holding(&self, r: Request<HoldingRequest>) -> Result<Response<HoldingReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        let holding = self.holding_get(user, &r.get_ref().account_id, &r.get_ref().symbol).await?;
        Ok(Response::new(HoldingReply { holding: Some(holding) }))
    }

    async fn transactions(
        &self,
        r: Request<TransactionsRequest>,
    ) -> Result<Response<TransactionsReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.transaction_list(user, r.into_inner()).await)
    }

    async fn valuation(&self, r: Request<ValuationRequest>) -> Result<Response<ValuationReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        let ValuationRequest { account_id, symbol: asked, .. } = r.into_inner();
        if asked.is_empty() {
            let holdings = self.holding_list(user, &account_id, None).await?.holdings;
            return Ok(Response::new(self.valued(holdings).await));
        }
        let holding = self.holding_get(user, &account_id, &asked).await?;
        Ok(Response::new(self.valued(vec![holding]).await))
    }

    async fn value(&self, r: Request<ValueRequest>) -> Result<Response<ValuedHolding>, Status> {
        caller::owner(&r, &r.get_ref().user_id)?;
        let holding = r.into_inner().holding.unwrap_or_default();
        let valued = self.valued(vec![holding]).await.holdings.pop();
        Ok(Response::new(valued.unwrap_or_default()))
    }

    async fn statement(&self, r: Request<StatementRequest>) -> Result<Response<StatementReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.statement_of(user, r.into_inner()).await)
    }

    async fn performance(
        &self,
        r: Request<PerformanceRequest>,
    ) -> Result<Response<PerformanceReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.performance_of(user, r.into_inner()).await)
    }

    async fn watchlist(&self, r: Request<UserRequest>) -> Result<Response<WatchlistReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        let listed = self.db.read(move |tx| Ok(store::watchlist(tx, user)?)).await?;
        let items = listed.into_iter().map(|(symbol, added_us)| WatchlistItem { symbol, added_us });
        Ok(Response::new(WatchlistReply { items: items.collect() }))
    }

    async fn add_to_watchlist(&self, r: Request<WatchlistRequest>) -> Result<Response<Empty>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.watch(user, &r.get_ref().symbol).await)
    }

    async fn remove_from_watchlist(&self, r: Request<WatchlistRequest>) -> Result<Response<Empty>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        let symbol = symbol(&r.get_ref().symbol)?;
        self.db.write(move |tx| Ok(store::unwatch(tx, user, &symbol)?)).await?;
        Ok(Response::new(Empty {}))
    }

    async fn default_account(&self, r: Request<DefaultAccountRequest>) -> Result<Response<Account>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        let currency = currency(&r.get_ref().currency)?;
        let found = self.db.read(move |tx| {
            let account = operations::default_account(tx, user, currency.code())?;
            let cash = store::cash(tx, &account)?;
            Ok(wire::account(&account, &cash))
        });
        reply(found.await)
    }

    async fn hold(&self, r: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.hold_place(user, r.into_inner()).await)
    }

    async fn adjust_hold(&self, r: Request<AdjustHoldRequest>) -> Result<Response<HoldReply>, Status> {
        caller::system(&r)?;
        reply(self.hold_adjust(r.into_inner()).await)
    }

    async fn release_hold(&self, r: Request<ReleaseHoldRequest>) -> Result<Response<Empty>, Status> {
        caller::system(&r)?;
        let order = id::<OrderId>("order_id", &r.get_ref().order_id)?.uuid();
        self.change(move |s| operations::hold_release(s, order)).await?;
        Ok(Response::new(Empty {}))
    }

    async fn endow(&self, r: Request<EndowRequest>) -> Result<Response<EndowReply>, Status> {
        caller::system(&r)?;
        reply(self.endow_make(r.into_inner()).await)
    }

    async fn seed_account(
        &self,
        r: Request<SeedAccountRequest>,
    ) -> Result<Response<SeedAccountReply>, Status> {
        caller::system(&r)?;
        reply(self.account_seed(r.into_inner()).await)
    }

    async fn audit(&self, r: Request<Empty>) -> Result<Response<AuditReply>, Status> {
        caller::system(&r)?;
        reply(self.audit_all().await)
    }

    async fn status(&self, r: Request<Empty>) -> Result<Response<PortfolioStatusReply>, Status> {
        caller::system(&r)?;
        reply(self.status_now().await)
    }

    async fn updates_since(
        &self,
        r: Request<UpdatesSinceRequest>,
    ) -> Result<Response<PortfolioUpdatesReply>, Status> {
        let user = caller::owner(&r, &r.get_ref().user_id)?;
        reply(self.updates(user, r.into_inner()).await)
    }
}
