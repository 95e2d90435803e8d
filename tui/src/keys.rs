//! The key table: one row per action; dispatch, help, hints and the command palette all read it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::borrow::Cow;

/// Everything that a key or the palette can do on the trading screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    LevelUp,
    LevelDown,
    Centre,
    GroupFiner,
    GroupCoarser,
    Size1,
    Size2,
    Size3,
    Size4,
    SizeBest,
    Buy,
    Sell,
    JoinBid,
    JoinAsk,
    MarketBuy,
    MarketSell,
    Replace,
    CancelAtCursor,
    OrderNext,
    OrderPrevious,
    CancelChosen,
    CancelSymbol,
    Flatten,
    Arm,
    Search,
    SymbolNext,
    SymbolPrevious,
    WatchToggle,
    Alert,
    AlertsClear,
    Portfolio,
    Symbol,
    Platform,
    TabOrders,
    TabPositions,
    TabFills,
    TabLog,
    OrderFilter,
    Copy,
    ScrollUp,
    ScrollDown,
    TapeFilter,
    PaneNext,
    TimeframeShorter,
    TimeframeLonger,
    Reload,
    Palette,
    Help,
    Suspend,
    Quit,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub action: Action,
    pub keys: &'static [KeyCode],
    /// The keys as people read them.
    pub label: &'static str,
    /// A few words for help and palette.
    pub about: &'static str,
    /// One word for the line of hints; empty when it is not shown there.
    pub hint: &'static str,
    pub group: &'static str,
}

const fn row(
    action: Action,
    keys: &'static [KeyCode],
    label: &'static str,
    about: &'static str,
    hint: &'static str,
    group: &'static str,
) -> Binding {
    Binding { action, keys, label, about, hint, group }
}

use KeyCode::{BackTab, Char, Down, F, PageDown, PageUp, Tab, Up};

/// Every action, in the order in which help shows it.
pub const BINDINGS: &[Binding] = &[
    row(Action::Buy, &[Char('b')], "b", "buy at the cursor, else the best bid", "buy", "Orders"),
    row(Action::Sell, &[Char('s')], "s", "sell at the cursor, else the best ask", "sell", "Orders"),
    row(Action::JoinBid, &[Char('B')], "B", "buy at the best bid", "", "Orders"),
    row(Action::JoinAsk, &[Char('S')], "S", "sell at the best ask", "", "Orders"),
    row(Action::MarketBuy, &[Char('m')], "m", "buy at market", "", "Orders"),
    row(Action::MarketSell, &[Char('M')], "M", "sell at market", "", "Orders"),
    row(Action::Replace, &[Char('r')], "r", "replace the own order at the cursor", "replace", "Orders"),
    row(Action::CancelAtCursor, &[Char('x')], "x", "cancel own orders at the cursor", "cancel", "Orders"),
    row(Action::CancelSymbol, &[Char('X')], "X", "cancel all orders in the symbol", "cancel-all", "Orders"),
    row(Action::Flatten, &[Char('F')], "F", "cancel all and sell the position", "flatten", "Orders"),
    row(Action::Arm, &[Char('A')], "A", "arm or disarm one-key orders", "", "Orders"),
    row(Action::Size1, &[Char('1')], "1", "first order size", "", "Orders"),
    row(Action::Size2, &[Char('2')], "2", "second order size", "", "Orders"),
    row(Action::Size3, &[Char('3')], "3", "third order size", "", "Orders"),
    row(Action::Size4, &[Char('4')], "4", "fourth order size", "", "Orders"),
    row(Action::SizeBest, &[Char('0')], "0", "size: all of the other side's best", "", "Orders"),
    row(Action::LevelUp, &[Up, Char('k')], "↑ k", "one level up", "", "Ladder"),
    row(Action::LevelDown, &[Down, Char('j')], "↓ j", "one level down", "", "Ladder"),
    row(Action::Centre, &[Char(' ')], "space", "centre and follow the market", "centre", "Ladder"),
    row(Action::GroupFiner, &[Char('[')], "[", "finer price steps", "", "Ladder"),
    row(Action::GroupCoarser, &[Char(']')], "]", "coarser price steps", "", "Ladder"),
    row(Action::Search, &[Char('/')], "/", "find a symbol", "symbol", "Market"),
    row(Action::SymbolNext, &[Tab], "Tab", "next symbol of the watchlist", "", "Market"),
    row(Action::SymbolPrevious, &[BackTab], "S-Tab", "previous symbol of the watchlist", "", "Market"),
    row(Action::WatchToggle, &[Char('w')], "w", "add to or remove from the watchlist", "", "Market"),
    row(Action::Alert, &[Char('a')], "a", "add an alert", "", "Market"),
    row(Action::AlertsClear, &[Char('d')], "d", "remove the symbol's alerts", "", "Market"),
    row(Action::Symbol, &[Char('i')], "i", "the symbol: figures and daily bars", "", "Market"),
    row(Action::TapeFilter, &[Char('t')], "t", "smallest trade shown", "", "Market"),
    row(Action::TimeframeShorter, &[Char(',')], ",", "shorter candles", "", "Market"),
    row(Action::TimeframeLonger, &[Char('.')], ".", "longer candles", "", "Market"),
    row(Action::PaneNext, &[Char('v')], "v", "next pane in a small window", "", "Market"),
    row(Action::Portfolio, &[Char('P')], "P", "portfolio and how it went", "", "Lower part"),
    row(Action::TabOrders, &[Char('o')], "o", "orders", "", "Lower part"),
    row(Action::TabPositions, &[Char('p')], "p", "positions", "", "Lower part"),
    row(Action::TabFills, &[Char('f')], "f", "fills", "", "Lower part"),
    row(Action::TabLog, &[Char('l')], "l", "log", "", "Lower part"),
    row(Action::OrderNext, &[Char('n')], "n", "choose the next open order", "", "Lower part"),
    row(Action::OrderPrevious, &[Char('N')], "N", "choose the previous open order", "", "Lower part"),
    row(Action::CancelChosen, &[Char('c')], "c", "cancel the chosen order", "", "Lower part"),
    row(Action::OrderFilter, &[Char('h')], "h", "orders: all, open, symbol, ended", "", "Lower part"),
    row(Action::Copy, &[Char('y')], "y", "copy order or ticket as a command", "", "Lower part"),
    row(Action::ScrollUp, &[PageUp], "PgUp", "scroll up", "", "Lower part"),
    row(Action::ScrollDown, &[PageDown], "PgDn", "scroll down", "", "Lower part"),
    row(Action::Platform, &[Char('D')], "D", "the platform, for administrators", "", "General"),
    row(Action::Reload, &[Char('R')], "R", "load everything again", "", "General"),
    row(Action::Palette, &[Char(':')], ":", "command palette", "palette", "General"),
    row(Action::Help, &[Char('?'), F(1)], "? F1", "help", "help", "General"),
    row(Action::Suspend, &[Char('Z')], "^Z", "back to the shell for a while", "", "General"),
    row(Action::Quit, &[Char('q')], "q", "quit", "quit", "General"),
];

impl Action {
    /// Its name in the configuration: `cancel-symbol`.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }
}

/// The table with the keys that a user wants otherwise. No key means two things in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyMap(Vec<(Action, KeyCode)>);

impl KeyMap {
    /// Reads `ACTION=KEY`: the name of an action, and a character, `space`, `tab` or `f1` to `f12`. An action that has one
    /// of its own loses the table's.
    ///
    /// # Errors
    /// One sentence: no such action or key, or a key that would mean two things.
    pub fn parse<S: AsRef<str>>(rows: &[S]) -> Result<Self, String> {
        let mut map = Self::default();
        for row in rows {
            let row = row.as_ref();
            let (name, key) = row.split_once('=').ok_or_else(|| format!("{row:?} must be ACTION=KEY"))?;
            let known = BINDINGS.iter().map(|row| row.action).find(|action| action.name() == name.trim());
            let action = known.ok_or_else(|| format!("{:?} is no action", name.trim()))?;
            let key = read_key(key.trim())
                .ok_or_else(|| format!("{:?} must be a character, space, tab or f1 to f12", key.trim()))?;
            map.0.retain(|(other, _)| *other != action);
            map.0.push((action, key));
        }
        for (action, key) in &map.0 {
            let others = BINDINGS.iter().map(|row| row.action).filter(|other| other != action);
            if let Some(other) = others.into_iter().find(|other| map.has(*other, *key)) {
                let label = key_name(*key);
                return Err(format!("{label} would be both {} and {}", action.name(), other.name()));
            }
        }
        Ok(map)
    }

    /// The rows as [`Self::parse`] reads them.
    pub fn rows(&self) -> Vec<String> {
        self.0.iter().map(|(action, key)| format!("{}={}", action.name(), key_name(*key))).collect()
    }

    fn own(&self, action: Action) -> Option<KeyCode> {
        self.0.iter().find(|(own, _)| *own == action).map(|(_, key)| *key)
    }

    fn has(&self, action: Action, key: KeyCode) -> bool {
        match self.own(action) {
            Some(own) => own == key,
            None => binding(action).is_some_and(|row| row.keys.contains(&key)),
        }
    }

    /// The action of a key on the trading screen.
    pub fn action(&self, key: &KeyEvent) -> Option<Action> {
        if key.modifiers == KeyModifiers::CONTROL && key.code == Char('z') {
            return Some(Action::Suspend);
        }
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SUPER) {
            return None;
        }
        BINDINGS.iter().map(|row| row.action).find(|action| self.has(*action, key.code))
    }

    /// The keys of a row as people read them.
    pub fn label(&self, row: &Binding) -> Cow<'static, str> {
        self.own(row.action).map_or(Cow::Borrowed(row.label), |key| Cow::Owned(key_name(key)))
    }
}

fn read_key(text: &str) -> Option<KeyCode> {
    let mut chars = text.chars();
    match (chars.next(), chars.as_str()) {
        (Some(c), "") if !c.is_control() && !c.is_whitespace() => Some(Char(c)),
        (Some('f'), number) => number.parse().ok().filter(|n| (1..=12).contains(n)).map(F),
        _ => match text {
            "space" => Some(Char(' ')),
            "tab" => Some(Tab),
            _ => None,
        },
    }
}

fn key_name(key: KeyCode) -> String {
    match key {
        Char(' ') => "space".to_owned(),
        Char(c) => c.to_string(),
        F(n) => format!("f{n}"),
        _ => "tab".to_owned(),
    }
}

/// The row of an action.
pub fn binding(action: Action) -> Option<&'static Binding> {
    BINDINGS.iter().find(|row| row.action == action)
}

/// Rows whose words contain every letter of the query in order, best first.
pub fn search(query: &str) -> Vec<&'static Binding> {
    let mut found: Vec<(usize, &Binding)> = BINDINGS
        .iter()
        .filter(|row| row.action != Action::Palette)
        .filter_map(|row| fuzzy(query, row.about).map(|score| (score, row)))
        .collect();
    found.sort_by_key(|(score, _)| *score);
    found.into_iter().map(|(_, row)| row).collect()
}

/// How far a text is from a query (0 is best); none when a letter is missing. A subsequence match: letters next to each
/// other and early are better.
pub fn fuzzy(query: &str, text: &str) -> Option<usize> {
    let mut score = 0;
    let mut from = 0;
    let text: Vec<char> = text.chars().flat_map(char::to_lowercase).collect();
    for c in query.chars().flat_map(char::to_lowercase).filter(|c| !c.is_whitespace()) {
        let gap = text.get(from..)?.iter().position(|t| *t == c)?;
        score += gap;
        from += gap + 1;
    }
    Some(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        let mut seen: Vec<KeyCode> = Vec::new();
        for key in BINDINGS.iter().flat_map(|row| row.keys) {
            assert!(!seen.contains(key), "{key:?} is bound twice");
            seen.push(*key);
        }
        for row in BINDINGS {
            assert!(row.about.chars().count() <= 37, "help has no room for all of {:?}", row.about);
        }
    }

    #[test]
    fn keys_of_ones_own_take_the_place_of_the_tables_and_never_mean_two_things() {
        let map = KeyMap::parse(&["flatten=f9", "portfolio=F", "cancel-symbol=space", "centre=C"]).unwrap();
        let of = |code| map.action(&KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(of(F(9)), Some(Action::Flatten));
        assert_eq!((of(Char('F')), of(Char('P'))), (Some(Action::Portfolio), None));
        assert_eq!((of(Char(' ')), of(Char('X'))), (Some(Action::CancelSymbol), None));
        assert_eq!(KeyMap::parse(&map.rows()), Ok(map.clone()));
        assert_eq!(binding(Action::Flatten).map(|row| map.label(row).into_owned()).as_deref(), Some("f9"));
        for (row, why) in [
            ("buy=s", "s would be both buy and sell"),
            ("fly=x", "\"fly\" is no action"),
            ("buy=escape", "\"escape\" must be a character, space, tab or f1 to f12"),
            ("buy=f13", "\"f13\" must be a character, space, tab or f1 to f12"),
            ("buy", "\"buy\" must be ACTION=KEY"),
        ] {
            assert_eq!(KeyMap::parse(&[row]), Err(why.to_owned()));
        }
    }

    #[test]
    fn the_palette_finds_an_action_by_some_of_its_letters() {
        assert_eq!(search("slposit").first().map(|row| row.action), Some(Action::Flatten));
        assert_eq!(search("cancel all and").first().map(|row| row.action), Some(Action::Flatten));
        assert_eq!(search("log").first().map(|row| row.action), Some(Action::TabLog));
    }
}
