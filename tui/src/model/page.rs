//! The screens over ladder and panes: a portfolio, a symbol, the platform. What they show is asked for when they open.

use super::Model;
use crate::msg::Cmd;
use fafnir_proto::v1;

/// Spans that a page may show, and the distance of the points of a curve in each.
pub const PERIODS: [(&str, &str); 7] =
    [("1D", "5m"), ("1W", "1h"), ("1M", "1d"), ("3M", "1d"), ("6M", "1d"), ("1Y", "1d"), ("MAX", "1d")];
/// The span at the first opening.
const PERIOD_FIRST: usize = 2;
/// Users that the page of the platform shows.
pub const USERS_MAX: u32 = 50;

/// Which page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// An account: what it is worth, how that went, what it holds.
    Portfolio,
    /// The symbol on the ladder: its listing, its figures, its days.
    Symbol,
    /// The platform at a glance, for administrators.
    Platform,
}

/// What the pages know.
#[derive(Debug, Clone, PartialEq)]
pub struct Pages {
    /// Index into [`PERIODS`].
    pub period: usize,
    /// Which of [`accounts`] the portfolio is of.
    pub account: usize,
    pub scroll: usize,
    pub performance: Option<v1::PerformanceReply>,
    /// Daily bars of this symbol, ascending.
    pub days: (String, Vec<v1::Candle>),
    /// What a year of days says of the symbol that it names.
    pub statistics: Option<v1::StatisticsReply>,
    pub platform: Option<v1::DashboardReply>,
    pub users: Vec<v1::UserAccount>,
    /// Why there is nothing.
    pub refused: Option<String>,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            period: PERIOD_FIRST,
            account: 0,
            scroll: 0,
            performance: None,
            days: (String::new(), Vec::new()),
            statistics: None,
            platform: None,
            users: Vec::new(),
            refused: None,
        }
    }
}

impl Pages {
    /// The span as people read it.
    pub fn period_name(&self) -> &'static str {
        PERIODS.get(self.period).map_or("1M", |p| p.0)
    }
}

/// Accounts that a portfolio can be of: open ones, the default one of the symbol's currency first.
pub fn accounts(model: &Model) -> Vec<&v1::Account> {
    let first = model.holdings.default_account(model.currency(&model.symbol)).map(|a| a.id.as_str());
    let mut accounts: Vec<&v1::Account> = model.holdings.accounts.values().filter(|a| !a.closed).collect();
    accounts.sort_by_key(|a| (Some(a.id.as_str()) != first, a.created_us, a.id.as_str()));
    accounts
}

/// The account that the portfolio is of.
pub fn account(model: &Model) -> Option<&v1::Account> {
    let accounts = accounts(model);
    accounts.get(model.pages.account).or(accounts.first()).copied()
}

/// Asks for what a page shows.
pub fn ask(model: &mut Model, page: Page, cmds: &mut Vec<Cmd>) {
    model.pages.refused = None;
    match page {
        Page::Portfolio => {
            let Some(account_id) = account(model).map(|a| a.id.clone()) else {
                model.pages.refused = Some("there is no account".to_owned());
                return;
            };
            let (period, interval) = PERIODS.get(model.pages.period).copied().unwrap_or(("1M", "1d"));
            if model.pages.performance.as_ref().is_some_and(|p| p.account_id != account_id) {
                model.pages.performance = None;
            }
            cmds.push(Cmd::Performance { account_id, period, interval });
        }
        Page::Symbol => {
            let symbol = model.symbol.clone();
            if !symbol.is_empty() {
                cmds.push(Cmd::Days { symbol });
            }
        }
        Page::Platform => cmds.push(Cmd::Platform),
    }
}
