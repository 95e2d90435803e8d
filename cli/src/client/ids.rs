//! Ids by a part that one alone has: the beginning, or the end, of which the terminal shows four characters.

use super::Client;
use crate::output::{Error, Exit, Result};
use fafnir_proto::{
    reason::Reason,
    v1::{Account, Empty, ListOrdersRequest, Order},
};
use std::collections::BTreeSet;

/// Orders of one page, and pages, that a part is looked for in.
const PAGE: u32 = 500;
const PAGES_MAX: usize = 20;

/// What an id is of.
struct Of {
    one: &'static str,
    several: &'static str,
    unknown: Reason,
    listed_by: &'static str,
}

const ORDER: Of = Of {
    one: "order",
    several: "orders",
    unknown: Reason::ORDER_NOT_FOUND,
    listed_by: "`fafnir order list` has them",
};
const GROUP: Of =
    Of { one: "group of orders", several: "groups of orders", unknown: Reason::GROUP_NOT_FOUND, ..ORDER };
const ACCOUNT: Of = Of {
    one: "account",
    several: "accounts",
    unknown: Reason::ACCOUNT_NOT_FOUND,
    listed_by: "`fafnir account list` has them",
};

const SESSION: Of = Of {
    one: "session",
    several: "sessions",
    unknown: Reason::SESSION_NOT_FOUND,
    listed_by: "`fafnir session list` has them",
};

/// A whole id in small letters; none where it is a part.
fn whole(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    (text.is_empty() || uuid::Uuid::parse_str(&text).is_ok()).then_some(text)
}

/// The one that begins or ends so.
fn one_of(of: &Of, text: &str, ids: impl Iterator<Item = String>) -> Result<String> {
    let part = text.trim().to_lowercase();
    let mut found: Vec<String> = ids.filter(|id| id.starts_with(&part) || id.ends_with(&part)).collect();
    match found.as_slice() {
        [_] => Ok(found.swap_remove(0)),
        [] => {
            let what = format!("no {} of yours begins or ends with {}", of.one, text.trim());
            Err(Error::new(Exit::Precondition, what).code(of.unknown).hint(of.listed_by))
        }
        [first, second, ..] => {
            let count = found.len();
            let what = format!("{count} {} begin or end with {}: {first}, {second}", of.several, text.trim());
            let hint = format!("give more of the id; {} whole", of.listed_by);
            Err(Error::new(Exit::Precondition, what).hint(hint))
        }
    }
}

async fn orders(client: &mut Client) -> Result<Vec<Order>> {
    let mut all: Vec<Order> = Vec::new();
    for _ in 0..PAGES_MAX {
        let before_id = all.last().map_or_else(String::new, |last| last.id.clone());
        let request = client.request(ListOrdersRequest { limit: PAGE, before_id, ..Default::default() });
        let page = client.terminal.orders(request).await?.into_inner().orders;
        let was_last = page.len() < PAGE as usize;
        all.extend(page);
        if was_last {
            break;
        }
    }
    Ok(all)
}

pub async fn order(client: &mut Client, text: &str) -> Result<String> {
    match whole(text) {
        Some(id) => Ok(id),
        None => one_of(&ORDER, text, orders(client).await?.into_iter().map(|order| order.id)),
    }
}

/// A group by its own id, which each of its orders has.
pub async fn group(client: &mut Client, text: &str) -> Result<String> {
    if let Some(id) = whole(text) {
        return Ok(id);
    }
    let groups: BTreeSet<String> = orders(client).await?.into_iter().map(|order| order.group_id).collect();
    one_of(&GROUP, text, groups.into_iter().filter(|id| !id.is_empty()))
}

/// A session that has not ended; one that has is known by its whole id only.
pub async fn session(client: &mut Client, text: &str) -> Result<String> {
    if let Some(id) = whole(text) {
        return Ok(id);
    }
    let request = client.request(Empty {});
    let sessions = client.terminal.sessions(request).await?.into_inner().sessions;
    one_of(&SESSION, text, sessions.into_iter().map(|session| session.id))
}

/// An open account; one that is closed is known by its whole id only. Nothing stays nothing.
pub async fn account(client: &mut Client, text: &str) -> Result<String> {
    if let Some(id) = whole(text) {
        return Ok(id);
    }
    let request = client.request(Empty {});
    account_among(&client.terminal.accounts(request).await?.into_inner().accounts, text)
}

/// The same where the open ones are known.
pub fn account_among(accounts: &[Account], text: &str) -> Result<String> {
    whole(text).map_or_else(|| one_of(&ACCOUNT, text, accounts.iter().map(|account| account.id.clone())), Ok)
}

/// The account of an option that may be left out: nothing is the platform's choice.
pub async fn account_or_default(client: &mut Client, text: Option<&String>) -> Result<String> {
    match text {
        Some(text) => account(client, text).await,
        None => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_one_id_or_refused_with_what_it_could_be() {
        let ids = || ["aa11bb", "aa22cc", "dd33bb"].map(str::to_owned).into_iter();
        assert_eq!(one_of(&ORDER, " AA1", ids()).unwrap(), "aa11bb");
        assert_eq!(one_of(&ORDER, "cc", ids()).unwrap(), "aa22cc");
        let several = one_of(&GROUP, "bb", ids()).unwrap_err();
        assert_eq!(several.message, "2 groups of orders begin or end with bb: aa11bb, dd33bb");
        let none = one_of(&ACCOUNT, "ee", ids()).unwrap_err();
        assert_eq!(
            (none.message.as_str(), none.code.as_str()),
            ("no account of yours begins or ends with ee", "ACCOUNT_NOT_FOUND")
        );
        assert_eq!(
            whole("018F5C1E-0000-7000-8000-000000000001").as_deref(),
            Some("018f5c1e-0000-7000-8000-000000000001")
        );
        assert_eq!(whole("018f"), None);
    }
}
