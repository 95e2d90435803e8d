//! The door for accounts and money: shape → the client's key in the own table → the engine → reply. What can be done is
//! the engine's to say.

use super::{
    api::{Api, check_currency, id, own_account, symbol},
    domain::ledger::POSTINGS_MAX,
    store::{self, Answered},
    wire,
};
use fafnir_platform::{
    Refusal,
    error::{Error, Result},
};
use fafnir_proto::{
    id::{AccountId, UserId},
    reason::Reason,
    v1::{
        Account, AccountType, CloseAccountCommand, CloseUserCommand, Command, CreateAccountRequest,
        DepositCommand, DepositReply, DepositRequest, Done, Empty, EndowCommand, EndowReply, EndowRequest,
        OpenAccountCommand, RequestKey, SeedAccountReply, SeedAccountRequest, TransferCommand,
        TransferRequest, WithdrawCommand, WithdrawRequest, command::What,
    },
};
use prost::Message;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

/// Longest idempotency key in bytes.
const KEY_LEN_MAX: usize = 128;
/// Bytes of a command's id and of a request's hash.
const HASH_LEN: usize = 16;

/// What a command did, now or when it was first asked for.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// It was done before.
    known: bool,
    done: Done,
    /// From where on the books have all of it.
    pub position: u64,
}

impl From<Answered> for Outcome {
    fn from(a: Answered) -> Self {
        let done =
            Done { object_id: a.object_id, amount_micros: a.amount_micros, at: a.at, ..Done::default() };
        Self { known: true, done, position: a.at }
    }
}

/// 16 bytes of a hash over parts.
fn hash(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize()[..HASH_LEN].to_vec()
}

/// The key of a request, with the hash of what it asks for: `request` names neither who asks nor the key. `None` without
/// a key: each request counts then.
fn key_of(key: String, operation: &str, request: &impl Message) -> Result<Option<RequestKey>> {
    if key.len() > KEY_LEN_MAX {
        let sentence = format!("the idempotency key must have at most {KEY_LEN_MAX} bytes");
        return Err(Refusal::invalid(Reason::IDEMPOTENCY_KEY_TOO_LONG, sentence).into());
    }
    let payload = hash(&[operation.as_bytes(), &request.encode_to_vec()]);
    Ok((!key.is_empty()).then_some(RequestKey { key, payload, looked_until: 0 }))
}

fn check_amount(amount: i64) -> Result<()> {
    if amount > 0 {
        return Ok(());
    }
    Err(Refusal::invalid(Reason::AMOUNT_OUT_OF_RANGE, "amount must be above 0").into())
}

fn check_type(number: i32) -> Result<()> {
    let known = AccountType::try_from(number);
    if matches!(known, Ok(AccountType::Investment | AccountType::Savings | AccountType::Chequing)) {
        return Ok(());
    }
    let sentence = "type must be INVESTMENT, SAVINGS or CHEQUING";
    Err(Refusal::invalid(Reason::ACCOUNT_TYPE_UNKNOWN, sentence).into())
}

impl Api {
    /// Has a command carried out once. `user` is empty for the platform.
    async fn execute(
        &self,
        user: String,
        key: Option<RequestKey>,
        what: What,
        deadline: Instant,
    ) -> Result<Outcome> {
        let mut command = Command { id: Vec::new(), user_id: user, key, what: Some(what) };
        if let Some(key) = &mut command.key {
            let (owner, text) = (command.user_id.clone(), key.key.clone());
            let (found, position) = self
                .db
                .read(move |tx| Ok((store::answered(tx, &owner, &text)?, store::position(tx)?)))
                .await?;
            match found {
                Some(found) if found.payload == key.payload => return Ok(found.into()),
                Some(_) => {
                    let sentence = format!("idempotency key {:?} was used for another request", key.key);
                    return Err(Refusal::exists(Reason::IDEMPOTENCY_KEY_REUSED, sentence).into());
                }
                None => key.looked_until = position,
            }
        }
        self.send(command, deadline).await
    }

    async fn send(&self, command: Command, deadline: Instant) -> Result<Outcome> {
        let answer = self.door.execute(command, deadline).await?;
        let done = answer.outcome?;
        Ok(Outcome { known: done.known, done, position: answer.position })
    }

    /// The account of an outcome: as it was after the command, else as it is.
    async fn account_of(&self, user: UserId, outcome: Outcome) -> Result<(Account, u64)> {
        if let Some(account) = outcome.done.account {
            return Ok((account, outcome.position));
        }
        let account = self.account_at(user, id("account_id", &outcome.done.object_id)?, outcome.position);
        Ok((account.await?, outcome.position))
    }

    async fn account_at(&self, user: UserId, account: AccountId, position: u64) -> Result<Account> {
        self.follower.wait(position).await?;
        self.db
            .read(move |tx| {
                let account = own_account(tx, user, account)?;
                let cash = store::cash(tx, &account)?;
                Ok(wire::account(&account, &cash))
            })
            .await
    }

    pub(super) async fn account_create(
        &self,
        user: UserId,
        mut r: CreateAccountRequest,
        deadline: Instant,
    ) -> Result<(Account, u64)> {
        check_type(r.r#type)?;
        check_currency(&r.currency)?;
        let key = std::mem::take(&mut r.idempotency_key);
        r.user_id.clear();
        let key = key_of(key, "account", &r)?;
        let open = OpenAccountCommand {
            account_id: Uuid::new_v4().to_string(),
            r#type: r.r#type,
            currency: r.currency,
            opening_deposit: true,
        };
        let outcome = self.execute(user.to_string(), key, What::OpenAccount(open), deadline).await?;
        self.account_of(user, outcome).await
    }

    pub(super) async fn account_close(
        &self,
        user: UserId,
        account: &str,
        deadline: Instant,
    ) -> Result<(Account, u64)> {
        let account_id: AccountId = id("account_id", account)?;
        let close = What::CloseAccount(CloseAccountCommand { account_id: account_id.to_string() });
        let outcome = match self.execute(user.to_string(), None, close, deadline).await {
            // One that is closed stays so.
            Err(Error::Refused(r)) if r.reason == Reason::ACCOUNT_NOT_FOUND => {
                let position = self.follower.position();
                let account = self.account_at(user, account_id, position).await?;
                return if account.closed { Ok((account, position)) } else { Err(r.into()) };
            }
            outcome => outcome?,
        };
        self.account_of(user, outcome).await
    }

    /// Closes every account of a user; nothing more is taken from it.
    pub(super) async fn user_close(&self, user: UserId, deadline: Instant) -> Result<u64> {
        let user = user.to_string();
        let command = Command {
            id: hash(&[b"close user", user.as_bytes()]),
            user_id: user,
            key: None,
            what: Some(What::CloseUser(CloseUserCommand {})),
        };
        match self.send(command, deadline).await {
            Err(Error::Refused(r)) if r.reason == Reason::USER_CLOSED => Ok(self.follower.position()),
            outcome => Ok(outcome?.position),
        }
    }

    pub(super) async fn deposit_make(
        &self,
        user: UserId,
        mut r: DepositRequest,
        deadline: Instant,
    ) -> Result<(DepositReply, u64)> {
        let account: AccountId = id("account_id", &r.account_id)?;
        check_amount(r.amount_micros)?;
        check_currency(&r.currency)?;
        let key = std::mem::take(&mut r.idempotency_key);
        r.user_id.clear();
        let key = key_of(key, "deposit", &r)?;
        let deposit = DepositCommand {
            account_id: account.to_string(),
            amount_micros: r.amount_micros,
            currency: r.currency,
        };
        let outcome = self.execute(user.to_string(), key, What::Deposit(deposit), deadline).await?;
        moved(&outcome)
    }

    pub(super) async fn withdrawal_make(
        &self,
        user: UserId,
        mut r: WithdrawRequest,
        deadline: Instant,
    ) -> Result<(DepositReply, u64)> {
        let account: AccountId = id("account_id", &r.account_id)?;
        check_amount(r.amount_micros)?;
        check_currency(&r.currency)?;
        let key = std::mem::take(&mut r.idempotency_key);
        r.user_id.clear();
        let key = key_of(key, "withdrawal", &r)?;
        let withdraw = WithdrawCommand {
            account_id: account.to_string(),
            amount_micros: r.amount_micros,
            currency: r.currency,
        };
        let outcome = self.execute(user.to_string(), key, What::Withdraw(withdraw), deadline).await?;
        moved(&outcome)
    }

    pub(super) async fn transfer_make(
        &self,
        user: UserId,
        mut r: TransferRequest,
        deadline: Instant,
    ) -> Result<(Empty, u64)> {
        let from: AccountId = id("from_account_id", &r.from_account_id)?;
        let to: AccountId = id("to_account_id", &r.to_account_id)?;
        check_amount(r.amount_micros)?;
        check_currency(&r.currency)?;
        let key = std::mem::take(&mut r.idempotency_key);
        r.user_id.clear();
        let key = key_of(key, "transfer", &r)?;
        let transfer = TransferCommand {
            from_account_id: from.to_string(),
            to_account_id: to.to_string(),
            amount_micros: r.amount_micros,
            currency: r.currency,
        };
        let outcome = self.execute(user.to_string(), key, What::Transfer(transfer), deadline).await?;
        Ok((Empty {}, outcome.position))
    }

    pub(super) async fn endow_make(
        &self,
        mut r: EndowRequest,
        deadline: Instant,
    ) -> Result<(EndowReply, u64)> {
        let account: AccountId = id("account_id", &r.account_id)?;
        if !r.currency.is_empty() {
            check_currency(&r.currency)?;
        }
        r.symbol = if r.quantity_e4 == 0 { String::new() } else { symbol(&r.symbol)? };
        let key = std::mem::take(&mut r.key);
        if key.is_empty() {
            return Err(Refusal::invalid(Reason::KEY_MISSING, "key must name the endowment").into());
        }
        let key = key_of(key, "endow", &r)?;
        let endow = EndowCommand {
            account_id: account.to_string(),
            amount_micros: r.amount_micros,
            symbol: r.symbol,
            quantity_e4: r.quantity_e4,
            cost_price_e4: r.cost_price_e4,
            currency: r.currency,
        };
        let outcome = self.execute(String::new(), key, What::Endow(endow), deadline).await?;
        Ok((EndowReply { applied: !outcome.known }, outcome.position))
    }

    /// Opens an account with a given id, once: also where the engine has forgotten that it was asked for.
    pub(super) async fn account_seed(
        &self,
        r: SeedAccountRequest,
        deadline: Instant,
    ) -> Result<(SeedAccountReply, u64)> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let user: UserId = id("user_id", &r.user_id)?;
        check_type(r.r#type)?;
        check_currency(&r.currency)?;
        let there = self.db.read(move |tx| Ok((store::account_by_id(tx, account)?, store::position(tx)?)));
        if let (Some(a), position) = there.await? {
            if a.user == user && a.kind == r.r#type && a.currency.code() == r.currency {
                return Ok((SeedAccountReply { created: false }, position));
            }
            let sentence = format!("account_id {account} is another account already");
            return Err(Refusal::exists(Reason::ACCOUNT_EXISTS, sentence).into());
        }
        let open = OpenAccountCommand {
            account_id: account.to_string(),
            r#type: r.r#type,
            currency: r.currency,
            opening_deposit: false,
        };
        let outcome = self.execute(user.to_string(), None, What::OpenAccount(open), deadline).await?;
        // Without a fact it was there already.
        let created = !outcome.known && outcome.done.at > 0;
        Ok((SeedAccountReply { created }, outcome.position))
    }
}

/// Names the client's posting of a deposit or withdrawal: the first of its transaction.
fn moved(outcome: &Outcome) -> Result<(DepositReply, u64)> {
    let posting = i64::try_from(outcome.done.at).ok().and_then(|at| at.checked_mul(POSTINGS_MAX as i64));
    let posting = posting.ok_or_else(|| Error::internal("a position is beyond the ids of transactions"))?;
    let reply = DepositReply {
        new_balance_micros: outcome.done.amount_micros,
        transaction_id: wire::transaction_id(posting).to_string(),
    };
    Ok((reply, outcome.position))
}
