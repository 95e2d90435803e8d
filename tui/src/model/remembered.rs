//! What the terminal remembers of a user from one start to the next: where it was, how it looked, the alerts.

use super::{
    Model, OrderFilter, Pane, SIZE_BEST, SIZE_FIRST, Tab,
    alert::{ALERTS_MAX, Alert},
    chart::INTERVALS,
    ladder::GROUPS,
    tape::FILTERS,
};
use fafnir_rules::symbol::Symbol;
use serde::{Deserialize, Serialize};

/// By values, not by places in tables: these may change from one version to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Remembered {
    pub symbol: String,
    /// Price steps in one row of the ladder.
    pub group: i64,
    pub timeframe: String,
    /// Smallest trade on the tape, in shares.
    pub smallest_trade: i64,
    /// Which of the keys 1 to 4 is the size, from 0; after them, all of the best price.
    pub size: Option<usize>,
    pub pane: Pane,
    pub tab: Tab,
    pub orders: OrderFilter,
    pub alerts: Vec<Alert>,
}

/// Where it is kept. Several terminals and commands may share it.
pub trait Memory: Send + Sync + 'static {
    /// What is kept of a user; none where nothing is, or it cannot be read. May block for a moment.
    fn recall(&self, user_id: &str) -> Option<Remembered>;
    /// Keeps `now`; `before` is what the caller knew to be kept, so that what others changed since stays.
    fn remember(&self, user_id: &str, before: &Remembered, now: &Remembered) -> anyhow::Result<()>;
}

impl Remembered {
    /// What is to be remembered of a terminal.
    pub fn of(model: &Model) -> Self {
        Self {
            symbol: model.symbol.clone(),
            group: GROUPS.get(model.ladder.group).copied().unwrap_or(1),
            timeframe: model.chart.interval_name().to_owned(),
            smallest_trade: FILTERS.get(model.tape.filter).copied().unwrap_or(0),
            size: Some(model.size_index),
            pane: model.pane,
            tab: model.tab,
            orders: model.order_filter,
            alerts: model.alerts.clone(),
        }
    }

    /// True while nothing of it has changed; makes nothing, because it is asked after every message.
    pub fn is_of(&self, model: &Model) -> bool {
        self.symbol == model.symbol
            && Some(&self.group) == GROUPS.get(model.ladder.group)
            && self.timeframe == model.chart.interval_name()
            && Some(&self.smallest_trade) == FILTERS.get(model.tape.filter)
            && (self.size.unwrap_or(SIZE_FIRST), self.pane, self.tab, self.orders)
                == (model.size_index, model.pane, model.tab, model.order_filter)
            && self.alerts == model.alerts
    }

    /// Brings a terminal back to it. What this version does not know stays as it is; a symbol that was asked for at the
    /// start wins.
    pub fn put_into(&self, model: &mut Model) {
        let place = |found: Option<usize>, now: usize| found.unwrap_or(now);
        model.ladder.group = place(GROUPS.iter().position(|g| *g == self.group), model.ladder.group);
        model.chart.interval =
            place(INTERVALS.iter().position(|i| i.0 == self.timeframe), model.chart.interval);
        model.tape.filter = place(FILTERS.iter().position(|f| *f == self.smallest_trade), model.tape.filter);
        model.size_index = place(self.size.filter(|size| *size <= SIZE_BEST), model.size_index);
        (model.pane, model.tab, model.order_filter) = (self.pane, self.tab, self.orders);
        if model.symbol.is_empty() && Symbol::parse(&self.symbol).is_ok() {
            model.symbol.clone_from(&self.symbol);
        }
        self.alerts_into(model);
    }

    /// Takes the alerts only.
    pub fn alerts_into(&self, model: &mut Model) {
        let are_listed = self.alerts.iter().filter(|a| Symbol::parse(&a.symbol).is_ok());
        model.alerts = are_listed.take(ALERTS_MAX).cloned().collect();
    }

    /// This, with the alerts that somebody else has added to `stored`, or taken from it, since it was `before`.
    #[must_use]
    pub fn merged(mut self, before: &Self, stored: &Self) -> Self {
        let has = |all: &[Alert], one: &Alert| all.iter().any(|a| a.is_same(one));
        self.alerts.retain(|a| has(&stored.alerts, a) || !has(&before.alerts, a));
        let added = stored.alerts.iter().filter(|a| !has(&before.alerts, a));
        let added: Vec<Alert> = added.filter(|a| !has(&self.alerts, a)).cloned().collect();
        self.alerts.extend(added);
        self.alerts.truncate(ALERTS_MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Theme,
        model::{Ids, alert::Trigger},
    };

    fn alert(price_e4: i64) -> Alert {
        Alert { symbol: "AAPL".into(), trigger: Trigger::PriceAtLeast(price_e4), fired: false }
    }

    #[test]
    fn a_terminal_comes_back_as_it_was() {
        let mut model = Model::new(0, (120, 40), Theme::default(), Ids::new("t"));
        assert!(Remembered::of(&model).is_of(&model));
        model.symbol = "MSFT".into();
        (model.ladder.group, model.chart.interval, model.tape.filter, model.size_index) = (3, 2, 1, 2);
        (model.pane, model.tab, model.order_filter) = (Pane::Chart, Tab::Fills, OrderFilter::Open);
        model.alerts = vec![alert(2_350_000)];
        let remembered = Remembered::of(&model);
        let text = serde_json::to_string(&remembered).unwrap();
        let read: Remembered = serde_json::from_str(&text).unwrap();
        assert_eq!(read, remembered);
        let mut again = Model::new(0, (120, 40), Theme::default(), Ids::new("t"));
        assert!(!read.is_of(&again));
        read.put_into(&mut again);
        assert!(read.is_of(&again), "{text}");
    }

    #[test]
    fn where_nothing_was_remembered_a_terminal_begins_as_it_is_made() {
        let made = Model::new(0, (120, 40), Theme::default(), Ids::new("t"));
        let mut model = made.clone();
        Remembered::default().put_into(&mut model);
        assert_eq!(Remembered::of(&model), Remembered::of(&made));
    }

    #[test]
    fn damage_and_other_versions_move_nothing() {
        let read: Remembered = serde_json::from_str(
            r#"{"symbol":"not a symbol","group":7,"timeframe":"3y","size":99,"later":true}"#,
        )
        .unwrap();
        let mut model = Model::new(0, (120, 40), Theme::default(), Ids::new("t"));
        read.put_into(&mut model);
        assert_eq!((model.symbol.as_str(), model.ladder.group, model.chart.interval), ("", 0, 0));
        assert_eq!(model.size_index, 1);
    }

    #[test]
    fn alerts_of_another_program_survive_and_its_removals_too() {
        let with = |prices: &[i64]| Remembered {
            alerts: prices.iter().map(|p| alert(*p)).collect(),
            ..Remembered::default()
        };
        let merged = with(&[1, 2, 5]).merged(&with(&[1, 2]), &with(&[2, 3]));
        assert_eq!(merged, with(&[2, 5, 3]));
    }
}
