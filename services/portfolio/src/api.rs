//! The RPCs of portfolio-service: commands go through the door, reads wait until the books know what their caller knows.

use super::{
    domain::{Account as Known, Currency},
    store, wire,
};
use fafnir_platform::{
    Context, Refusal, caller,
    db::{Db, Tx, inbox},
    door::{self, Door, answered},
    error::{Error, Result},
    facts::Follower,
};
use fafnir_proto::{
    id::{self, AccountId, TransactionId, UserId},
    reason::Reason,
    v1::{
        Account, AccountRequest, AuditReply, CreateAccountRequest, DepositReply, DepositRequest, Empty,
        EndowReply, EndowRequest, GainsReply, GainsRequest, Holding, HoldingReply, HoldingRequest,
        HoldingsReply, ListAccountsReply, LotsReply, LotsRequest, PerformanceReply, PerformanceRequest,
        PortfolioStatusReply, PortfolioUpdate, PortfolioUpdatesReply, ReportReply, ReportRequest,
        SeedAccountReply, SeedAccountRequest, StatementReply, StatementRequest, TransactionsReply,
        TransactionsRequest, TransferRequest, UpdatesSinceRequest, UserRequest, ValuationReply,
        ValuationRequest, ValueRequest, ValuedHolding, WithdrawRequest, portfolio_server::Portfolio,
    },
};
use fafnir_rules::symbol::Symbol;
use prost::Message;
use std::str::FromStr;
use tonic::{Request, Response, Status};

/// Lines of one page of a statement, and what an unnamed limit means.
const TRANSACTIONS_MAX: u32 = 500;
const TRANSACTIONS_DEFAULT: u32 = 100;
const UPDATES_MAX: u32 = 500;

/// The service behind the RPCs.
#[derive(Debug, Clone)]
pub struct Api {
    pub ctx: Context,
    pub db: Db,
    pub door: Door,
    pub follower: Follower,
}

pub(super) fn id<T: FromStr<Err = id::Malformed>>(field: &str, text: &str) -> Result<T> {
    Ok(text.parse().map_err(|e| Refusal::invalid(Reason::ID_MALFORMED, format!("{field} {e}")))?)
}

pub(super) fn symbol(text: &str) -> Result<String> {
    let symbol =
        Symbol::parse(text).map_err(|e| Refusal::invalid(Reason::SYMBOL_MALFORMED, e.to_string()))?;
    Ok(symbol.to_string())
}

pub(super) fn check_currency(text: &str) -> Result<Currency> {
    Ok(Currency::parse(text)
        .ok_or_else(|| Refusal::invalid(Reason::CURRENCY_UNKNOWN, "currency must be USD or CAD"))?)
}

/// The account of this user, closed or not; another's answers like an unknown one.
pub(super) fn own_account(tx: &mut dyn Tx, user: UserId, id: AccountId) -> Result<Known> {
    match store::account_by_id(tx, id)? {
        Some(account) if account.user == user => Ok(account),
        _ => Err(no_account(id).into()),
    }
}

/// Not an account of the user, whether somebody else's or nobody's.
pub(super) fn no_account(id: AccountId) -> Refusal {
    Refusal::not_found(Reason::ACCOUNT_NOT_FOUND, format!("account_id {id} is not an account of this user"))
}

impl Api {
    /// The user whose rows are read, once the books know what the caller knows.
    async fn reader<T>(&self, r: &Request<T>, user_id: &str) -> Result<UserId, Status> {
        let user = caller::owner(r, user_id)?;
        self.follower.wait_for(r).await?;
        Ok(user)
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
                let account = own_account(tx, user, account)?;
                let asked = store::Lines { after: 0, before, newest_first: true, limit };
                let lines = store::lines(tx, &account, asked)?;
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
                let account = own_account(tx, user, account)?;
                let holdings = store::holdings(tx, &account, only.as_deref())?;
                let shown = holdings.iter().map(|(code, b)| wire::holding(&account, code, b));
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

    async fn status_now(&self) -> Result<PortfolioStatusReply> {
        self.db
            .read(|tx| {
                Ok(PortfolioStatusReply {
                    settled: store::trades(tx)?,
                    dead_letters: inbox::dead_letter_count(tx)?,
                    position: store::position(tx)?,
                })
            })
            .await
    }
}

fn reply<T>(answer: Result<T>) -> Result<Response<T>, Status> {
    Ok(Response::new(answer?))
}

/// The answer to a command, with the position from which on the books know of it.
fn told<T>(answer: Result<(T, u64)>) -> Result<Response<T>, Status> {
    let (reply, position) = answer?;
    Ok(answered(reply, position))
}

#[tonic::async_trait]
impl Portfolio for Api {
    async fn create_account(&self, r: Request<CreateAccountRequest>) -> Result<Response<Account>, Status> {
        let (user, deadline) = (caller::owner(&r, &r.get_ref().user_id)?, door::deadline(&r));
        told(self.account_create(user, r.into_inner(), deadline).await)
    }

    async fn list_accounts(&self, r: Request<UserRequest>) -> Result<Response<ListAccountsReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
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
        let (user, deadline) = (caller::owner(&r, &r.get_ref().user_id)?, door::deadline(&r));
        told(self.account_close(user, &r.get_ref().account_id, deadline).await)
    }

    async fn close_user(&self, r: Request<UserRequest>) -> Result<Response<Empty>, Status> {
        caller::system(&r)?;
        let (user, deadline) = (id("user_id", &r.get_ref().user_id)?, door::deadline(&r));
        told(self.user_close(user, deadline).await.map(|position| (Empty {}, position)))
    }

    async fn deposit(&self, r: Request<DepositRequest>) -> Result<Response<DepositReply>, Status> {
        let (user, deadline) = (caller::owner(&r, &r.get_ref().user_id)?, door::deadline(&r));
        told(self.deposit_make(user, r.into_inner(), deadline).await)
    }

    async fn withdraw(&self, r: Request<WithdrawRequest>) -> Result<Response<DepositReply>, Status> {
        let (user, deadline) = (caller::owner(&r, &r.get_ref().user_id)?, door::deadline(&r));
        told(self.withdrawal_make(user, r.into_inner(), deadline).await)
    }

    async fn transfer(&self, r: Request<TransferRequest>) -> Result<Response<Empty>, Status> {
        let (user, deadline) = (caller::owner(&r, &r.get_ref().user_id)?, door::deadline(&r));
        told(self.transfer_make(user, r.into_inner(), deadline).await)
    }

    async fn endow(&self, r: Request<EndowRequest>) -> Result<Response<EndowReply>, Status> {
        caller::system(&r)?;
        let deadline = door::deadline(&r);
        told(self.endow_make(r.into_inner(), deadline).await)
    }

    async fn seed_account(
        &self,
        r: Request<SeedAccountRequest>,
    ) -> Result<Response<SeedAccountReply>, Status> {
        caller::system(&r)?;
        let deadline = door::deadline(&r);
        told(self.account_seed(r.into_inner(), deadline).await)
    }

    async fn holdings(&self, r: Request<AccountRequest>) -> Result<Response<HoldingsReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.holding_list(user, &r.get_ref().account_id, None).await)
    }

    async fn holding(&self, r: Request<HoldingRequest>) -> Result<Response<HoldingReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        let holding = self.holding_get(user, &r.get_ref().account_id, &r.get_ref().symbol).await?;
        Ok(Response::new(HoldingReply { holding: Some(holding) }))
    }

    async fn transactions(
        &self,
        r: Request<TransactionsRequest>,
    ) -> Result<Response<TransactionsReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.transaction_list(user, r.into_inner()).await)
    }

    async fn valuation(&self, r: Request<ValuationRequest>) -> Result<Response<ValuationReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
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
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.statement_of(user, r.into_inner()).await)
    }

    async fn performance(
        &self,
        r: Request<PerformanceRequest>,
    ) -> Result<Response<PerformanceReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.performance_of(user, r.into_inner()).await)
    }

    async fn gains(&self, r: Request<GainsRequest>) -> Result<Response<GainsReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.gains_of(user, r.into_inner()).await)
    }

    async fn report(&self, r: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.report_of(user, r.into_inner()).await)
    }

    async fn lots(&self, r: Request<LotsRequest>) -> Result<Response<LotsReply>, Status> {
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.lots_of(user, r.into_inner()).await)
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
        let user = self.reader(&r, &r.get_ref().user_id).await?;
        reply(self.updates(user, r.into_inner()).await)
    }
}
