//! Which account an order is for: asked of portfolio-service, remembered where the answer stays true.

use super::domain::Error as Refused;
use fafnir_platform::{
    context::Context,
    error::{Error, Result},
};
use fafnir_proto::{
    id::{AccountId, UserId},
    reason::Reason,
    v1::{AccountType, DefaultAccountRequest, UserRequest},
};
use std::time::Duration;

/// Answers kept, and for how long. A refused hold forgets the answer at once.
const ANSWERS_MAX: u64 = 20_000;
const ANSWER_TTL: Duration = Duration::from_mins(10);

/// User and either the listing's currency or the account asked for.
type Key = (UserId, String);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts {
    ctx: Context,
    answers: moka::future::Cache<Key, AccountId>,
}

impl Accounts {
    pub fn new(ctx: &Context) -> Self {
        let answers =
            moka::future::Cache::builder().max_capacity(ANSWERS_MAX).time_to_live(ANSWER_TTL).build();
        Self { ctx: ctx.clone(), answers }
    }

    /// The account of an order of `user` in a listing of this currency: the one asked for, if it is the user's and for
    /// investment, else the default one.
    pub async fn resolve(
        &self,
        user: UserId,
        requested: Option<AccountId>,
        currency: &str,
    ) -> Result<AccountId> {
        let key = (user, requested.map_or_else(|| currency.to_owned(), |id| id.to_string()));
        if let Some(account) = self.answers.get(&key).await {
            return Ok(account);
        }
        let (account, stays) = match requested {
            Some(id) => (self.own(user, id).await?, true),
            None => self.default(user, currency).await?,
        };
        if stays {
            self.answers.insert(key, account).await;
        }
        Ok(account)
    }

    /// Forgets what is known of a user's account: a hold on it was refused.
    pub async fn forget(&self, user: UserId, account: &str, currency: &str) {
        self.answers.invalidate(&(user, account.to_owned())).await;
        self.answers.invalidate(&(user, currency.to_owned())).await;
    }

    async fn own(&self, user: UserId, id: AccountId) -> Result<AccountId> {
        let request = UserRequest { user_id: user.to_string() };
        let accounts = self
            .ctx
            .clients
            .portfolio(&self.ctx.system())
            .list_accounts(request)
            .await?
            .into_inner()
            .accounts;
        let text = id.to_string();
        // Another's account answers exactly like an unknown one.
        let account = accounts
            .iter()
            .find(|a| a.id == text)
            .ok_or_else(|| Refused::not_found(Reason::ACCOUNT_NOT_FOUND, "no such account"))
            .map_err(Error::from)?;
        if account.closed {
            return Err(
                Refused::precondition(Reason::ACCOUNT_CLOSED, "account_id names a closed account").into()
            );
        }
        if account.r#type() != AccountType::Investment {
            return Err(Refused::precondition(
                Reason::ACCOUNT_NOT_INVESTMENT,
                "account_id must name an INVESTMENT account",
            )
            .into());
        }
        Ok(id)
    }

    /// The default account, and whether it stays the default: one in the listing's currency does until it is closed,
    /// another only until one in that currency is opened.
    async fn default(&self, user: UserId, currency: &str) -> Result<(AccountId, bool)> {
        let request = DefaultAccountRequest { user_id: user.to_string(), currency: currency.to_owned() };
        let account =
            self.ctx.clients.portfolio(&self.ctx.system()).default_account(request).await?.into_inner();
        let id = AccountId::parse(&account.id)
            .map_err(|_| Error::internal("portfolio-service named an account that is no UUID"))?;
        Ok((id, account.currency == currency))
    }
}
