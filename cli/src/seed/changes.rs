//! Rows of the seeds that say otherwise than what is stored: told, and applied where that is asked for and can be.

use super::User;
use crate::output::Out;
use fafnir_proto::v1::{EndowRequest, Instrument, Profile};

/// Rows that are told one by one; of more their number.
const TOLD_MAX: usize = 10;

/// The rows of one loading.
#[derive(Debug)]
pub struct Told {
    replace: bool,
    /// Of the part that is being loaded.
    changed: u64,
    lines: Vec<String>,
}

impl Told {
    pub const fn new(replace: bool) -> Self {
        Self { replace, changed: 0, lines: Vec::new() }
    }

    /// How many rows of the part that ends here differed.
    pub fn of_part(&mut self) -> u64 {
        std::mem::take(&mut self.changed)
    }

    fn add(&mut self, what: &str, differs: &[&str], applied: bool) {
        self.changed += 1;
        let outcome = if applied { "applied" } else { "changed, not applied" };
        self.lines.push(format!("{what}: {} {outcome}", differs.join(", ")));
    }

    /// True when the listing is to be stored: `new` then has what is the market's, not the seed's, and what never changes.
    pub fn instrument(&mut self, stored: &Instrument, new: &mut Instrument) -> bool {
        new.state = stored.state;
        new.previous_close_e4 = stored.previous_close_e4;
        new.volatility_pause = stored.volatility_pause;
        new.version = stored.version;
        let fixed = [
            ("currency", stored.currency != new.currency),
            ("tick", stored.tick_e4 != new.tick_e4),
            ("lot", stored.lot_e4 != new.lot_e4),
        ];
        let free = [
            ("name", stored.name != new.name),
            ("exchange", stored.exchange != new.exchange),
            ("exchange_full_name", stored.exchange_full_name != new.exchange_full_name),
            ("type", stored.r#type != new.r#type),
            ("shares_outstanding", stored.shares_outstanding != new.shares_outstanding),
            ("sector", stored.sector != new.sector),
            ("industry", stored.industry != new.industry),
            ("country", stored.country != new.country),
            ("website", stored.website != new.website),
            ("description", stored.description != new.description),
            ("volatility_band_bps", stored.volatility_band_bps != new.volatility_band_bps),
        ];
        let names = |all: &[(&'static str, bool)]| -> Vec<&'static str> {
            all.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect()
        };
        let (fixed, free) = (names(&fixed), names(&free));
        let what = format!("instruments.csv, {}", stored.symbol);
        if !fixed.is_empty() {
            self.add(&format!("{what}, fixed at the listing"), &fixed, false);
            new.currency.clone_from(&stored.currency);
            (new.tick_e4, new.lot_e4) = (stored.tick_e4, stored.lot_e4);
        }
        if !free.is_empty() {
            self.add(&what, &free, self.replace);
        }
        self.replace && !free.is_empty()
    }

    /// The profile to store, where it differs and is to be applied. A password or a role is nobody's to compare: whoever
    /// has them has changed them.
    pub fn user(&mut self, stored: Profile, row: &User) -> Option<Profile> {
        let mut differs = Vec::new();
        if stored.first_name != row.first_name {
            differs.push("first_name");
        }
        if stored.last_name != row.last_name {
            differs.push("last_name");
        }
        let what = format!("users.toml, {}", row.email);
        if !differs.is_empty() {
            self.add(&what, &differs, self.replace);
        }
        if stored.email != row.email {
            self.add(&what, &["email"], false);
        }
        (self.replace && !differs.is_empty()).then(|| Profile {
            first_name: row.first_name.clone(),
            last_name: row.last_name.clone(),
            ..stored
        })
    }

    /// Money that was given once is in the books: it is not given again.
    pub fn endowment(&mut self, row: &EndowRequest) {
        let what = if row.symbol.is_empty() { &row.currency } else { &row.symbol };
        let what = format!("accounts.toml, account {}, in the books already", row.account_id) + ", " + what;
        self.add(&what, &["amount"], false);
    }

    /// Says what differed.
    pub fn say(&self, out: Out) {
        for line in self.lines.iter().take(TOLD_MAX) {
            out.note(line);
        }
        if self.lines.len() > TOLD_MAX {
            out.note(format_args!("and {} more", self.lines.len() - TOLD_MAX));
        }
        if !self.replace && !self.lines.is_empty() {
            out.note("`fafnir seed --replace` applies what can be");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_takes_what_may_change_and_keeps_what_is_the_markets() {
        let stored = Instrument {
            symbol: "AAPL".into(),
            name: "Apple".into(),
            tick_e4: 100,
            previous_close_e4: 7,
            version: 3,
            ..Instrument::default()
        };
        let row =
            || Instrument { name: "Apple Inc.".into(), tick_e4: 500, previous_close_e4: 1, ..stored.clone() };
        let mut told = Told::new(false);
        assert!(!told.instrument(&stored, &mut row()));
        assert_eq!(told.of_part(), 2);
        assert_eq!(told.lines[1], "instruments.csv, AAPL: name changed, not applied");
        let (mut told, mut new) = (Told::new(true), row());
        assert!(told.instrument(&stored, &mut new));
        assert_eq!((new.name.as_str(), new.tick_e4, new.previous_close_e4), ("Apple Inc.", 100, 7));
        assert!(!told.instrument(&new, &mut new.clone()), "nothing is left to apply");
    }
}
