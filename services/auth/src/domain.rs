//! What an e-mail and a password must be, who is throttled for how long: rules without I/O.

pub mod key;

use fafnir_platform::{Refusal, clock::SECOND_US, http::address::Source, names};
use fafnir_proto::reason::Reason;
use std::{collections::BTreeMap, fmt};
use unicode_normalization::UnicodeNormalization as _;

/// Octets of an e-mail address (RFC 5321 §4.5.3.1) and of its local part.
const EMAIL_LEN_MAX: usize = 254;
const LOCAL_PART_LEN_MAX: usize = 64;
/// Characters of a password. There are no composition rules.
pub const PASSWORD_LEN_MIN: usize = 6;
pub const PASSWORD_LEN_MAX: usize = 256;

/// The commonest passwords of published leaks, lower case, one a line.
const COMMON_PASSWORDS: &str = include_str!("common_passwords.txt");

/// An e-mail address in the form that is compared: spellings that read the same are the same user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

impl Email {
    /// Folds whatever was typed, for a look-up: compatibility forms (full-width letters, ligatures) and case go.
    pub fn fold(text: &str) -> Self {
        let compatible: String = text.trim().nfkc().collect();
        // Through upper case, so that ß and ss, ſ and s, ı and i meet.
        Self(compatible.to_uppercase().to_lowercase().nfkc().collect())
    }

    /// An address that a user may register.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let refuse = |message: &str| Err(Refusal::invalid(Reason::EMAIL_MALFORMED, message));
        let folded = Self::fold(text);
        if folded.0.is_empty() {
            return refuse("email must not be empty");
        }
        if folded.0.len() > EMAIL_LEN_MAX || text.len() > EMAIL_LEN_MAX {
            return refuse("email must have at most 254 characters");
        }
        let Some((local, domain)) = folded.0.split_once('@') else {
            return refuse("email must contain one @");
        };
        let plain = |c: char| {
            c.is_alphanumeric()
                || ".!#$%&'*+/=?^_`{|}~-".contains(c)
                || unicode_normalization::char::is_combining_mark(c)
        };
        let local_is_good =
            !local.is_empty() && local.len() <= LOCAL_PART_LEN_MAX && local.chars().all(plain);
        let label = |l: &str| {
            let inside = |c: char| {
                c.is_alphanumeric() || c == '-' || unicode_normalization::char::is_combining_mark(c)
            };
            !l.is_empty()
                && l.len() <= 63
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.chars().all(inside)
        };
        if !local_is_good || domain.is_empty() || !domain.split('.').all(label) {
            return refuse("email must be an address such as name@example.com");
        }
        Ok(folded)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password in the form that is hashed (NFC).
#[derive(Clone)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl Password {
    /// A password that a user may choose; `field` names it in the refusal.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let refuse = || {
            let message = format!("{field} must have {PASSWORD_LEN_MIN} to {PASSWORD_LEN_MAX} characters");
            Refusal::invalid(Reason::PASSWORD_LENGTH, message)
        };
        let password = Self::given(text).ok_or_else(refuse)?;
        if password.0.chars().count() < PASSWORD_LEN_MIN { Err(refuse()) } else { Ok(password) }
    }

    /// Refuses what is guessed first: what everybody takes, and the user's own address.
    pub fn check_strength(&self, field: &str, email: &Email) -> Result<(), Refusal> {
        let refuse = |why: &str| {
            Err(Refusal::invalid(Reason::PASSWORD_GUESSABLE, format!("{field} must not be {why}")))
        };
        let folded = self.0.to_lowercase();
        let is_common = |text: &str| COMMON_PASSWORDS.lines().any(|common| common == text);
        // A word with digits or marks after it is the same word.
        if is_common(&folded) || is_common(folded.trim_end_matches(|c: char| !c.is_alphabetic())) {
            return refuse("one of the commonest passwords");
        }
        let local = email.0.split('@').next().unwrap_or_default();
        if folded == email.0 || folded == local {
            return refuse("your e-mail address");
        }
        Ok(())
    }

    /// A password that is only compared; `None` when it cannot be anybody's.
    pub fn given(text: &str) -> Option<Self> {
        // The length is checked before normalising, which costs time.
        if text.chars().nth(PASSWORD_LEN_MAX).is_some() {
            return None;
        }
        Some(Self(text.nfc().collect()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A registration that passed every rule.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: Email,
    /// As the user wrote it, trimmed.
    pub email_shown: String,
    pub password: Password,
    pub first_name: String,
    pub last_name: String,
}

impl NewUser {
    pub fn parse(email: &str, password: &str, first_name: &str, last_name: &str) -> Result<Self, Refusal> {
        Ok(Self {
            email: Email::parse(email)?,
            email_shown: email.trim().to_owned(),
            password: Password::parse("password", password)?,
            first_name: names::person_name("firstName", first_name)?,
            last_name: names::person_name("lastName", last_name)?,
        })
    }
}

/// Failed sign-ins of an account from one source, of one source in all, and of an account from anywhere.
///
/// An account with many failures from anywhere is guarded: an address has one try in a quarter of an hour, unless its
/// user has signed in from there before. So its owner is never locked out, and who guesses from many addresses has
/// one guess of each.
#[derive(Debug)]
pub struct Throttle {
    by_account: Counter<(Email, Source)>,
    by_source: Counter<Source>,
    anywhere: Counter<Email>,
}

/// Failed sign-ins in [`WINDOW_US`] before a source has to wait.
const ACCOUNT_FAILURES_MAX: u32 = 5;
const SOURCE_FAILURES_MAX: u32 = 30;
/// Failed sign-ins of an account from anywhere before it is guarded.
const ANYWHERE_FAILURES_MAX: u32 = 20;
const WINDOW_US: i64 = 60 * SECOND_US;
/// The wait doubles from one minute to this; it never becomes a lock.
const WAIT_MAX_US: i64 = 15 * 60 * SECOND_US;
/// Without a failure for this long everything is forgotten.
const FORGET_US: i64 = 60 * 60 * SECOND_US;
/// Entries that one counter keeps.
const ENTRIES_MAX: usize = 20_000;

impl Default for Throttle {
    fn default() -> Self {
        Self {
            by_account: Counter::new(ACCOUNT_FAILURES_MAX),
            by_source: Counter::new(SOURCE_FAILURES_MAX),
            anywhere: Counter::new(ANYWHERE_FAILURES_MAX),
        }
    }
}

impl Throttle {
    /// Whether a sign-in may be tried; else the seconds to wait. `is_known`: the user signed in from there before.
    pub fn check(&self, email: &Email, source: Source, is_known: bool, now_us: i64) -> Result<(), u64> {
        let own = (email.clone(), source);
        self.by_account.check(&own, now_us)?;
        if !is_known && self.anywhere.check(email, now_us).is_err() {
            self.by_account.once(&own, now_us)?;
        }
        self.by_source.check(&source, now_us)
    }

    /// Whether there were failures of this account of late: it may be guarded.
    pub fn is_guarded(&self, email: &Email) -> bool {
        self.anywhere.entries.contains_key(email)
    }

    /// Counts a failure; whether it is the one from which on its source has to wait.
    pub fn failed(&mut self, email: &Email, source: Source, now_us: i64) -> bool {
        let waits = [
            self.by_account.failed((email.clone(), source), now_us),
            self.by_source.failed(source, now_us),
            self.anywhere.failed(email.clone(), now_us),
        ];
        waits.contains(&true)
    }

    /// A success clears the account's failures; the source's stay, or one good account would hide many bad tries.
    pub fn succeeded(&mut self, email: &Email, source: Source) {
        self.by_account.entries.remove(&(email.clone(), source));
    }
}

#[derive(Debug)]
struct Counter<K> {
    failures_max: u32,
    entries: BTreeMap<K, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    window_us: i64,
    failures: u32,
    strikes: u32,
    blocked_until_us: i64,
    last_us: i64,
}

impl<K: Ord + Clone> Counter<K> {
    fn new(failures_max: u32) -> Self {
        Self { failures_max, entries: BTreeMap::new() }
    }

    fn check(&self, key: &K, now_us: i64) -> Result<(), u64> {
        match self.entries.get(key) {
            Some(e) if e.blocked_until_us > now_us => {
                let left_us = e.blocked_until_us - now_us;
                Err(u64::try_from(left_us / SECOND_US).unwrap_or(0) + 1)
            }
            _ => Ok(()),
        }
    }

    /// Refuses where there was a failure within [`WAIT_MAX_US`].
    fn once(&self, key: &K, now_us: i64) -> Result<(), u64> {
        let left_us = self.entries.get(key).map_or(0, |e| e.last_us.saturating_add(WAIT_MAX_US) - now_us);
        if left_us <= 0 { Ok(()) } else { Err(u64::try_from(left_us / SECOND_US).unwrap_or(0) + 1) }
    }

    /// Whether a wait begins with it.
    fn failed(&mut self, key: K, now_us: i64) -> bool {
        if self.entries.len() >= ENTRIES_MAX && !self.entries.contains_key(&key) {
            self.make_room(now_us);
        }
        let fresh =
            Entry { window_us: now_us, failures: 0, strikes: 0, blocked_until_us: 0, last_us: now_us };
        let entry = self.entries.entry(key).or_insert(fresh);
        if now_us - entry.last_us > FORGET_US {
            *entry = fresh;
        }
        if now_us - entry.window_us >= WINDOW_US {
            (entry.window_us, entry.failures) = (now_us, 0);
        }
        entry.last_us = now_us;
        entry.failures += 1;
        if entry.failures >= self.failures_max {
            let wait_us = (WINDOW_US << entry.strikes.min(8)).min(WAIT_MAX_US);
            entry.blocked_until_us = now_us + wait_us;
            entry.strikes += 1;
            entry.failures = 0;
            return true;
        }
        false
    }

    /// Forgets what no longer matters, and a quarter of the rest, the oldest first, when that is not enough.
    fn make_room(&mut self, now_us: i64) {
        self.entries.retain(|_, e| e.blocked_until_us > now_us || now_us - e.window_us < WINDOW_US);
        if self.entries.len() >= ENTRIES_MAX {
            let mut times: Vec<i64> = self.entries.values().map(|e| e.last_us).collect();
            times.sort_unstable();
            let cut = times[ENTRIES_MAX / 4];
            self.entries.retain(|_, e| e.last_us > cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_an_address_that_read_the_same_are_one_user() {
        let one = Email::parse("user@test.com").unwrap();
        for other in [
            " USER@Test.Com ",
            "ｕｓｅｒ@test.com",
            "user＠test.com",
            "uſer@test.com",
            "user@te\u{ff53}t.com",
        ] {
            assert_eq!(Email::parse(other).unwrap(), one, "{other}");
        }
        assert_eq!(Email::parse("ÉLODIE@x.fr").unwrap(), Email::parse("e\u{301}lodie@x.fr").unwrap());
        assert_eq!(Email::parse("STRASSE@x.de").unwrap(), Email::parse("straße@x.de").unwrap());
        assert_ne!(Email::parse("user1@test.com").unwrap(), one);
        // Folding is stable: what is stored is found again.
        for text in ["Straße@x.de", "ΣΑΣ@x.gr", "ﬁn@x.com", "İi@x.tr"] {
            let folded = Email::fold(text);
            assert_eq!(Email::fold(folded.as_str()), folded, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            " ",
            "@",
            "a@",
            "@b",
            "a b@c.de",
            "a@b@c",
            "a@b..c",
            "a@-b.c",
            "a\0@b.c",
            "a\r\n@b.c",
            "a@b.c>",
            "<a@b.c>",
            "a\"@b.c",
            "a\u{202e}@b.c",
            "a\u{200b}@b.c",
        ] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Email::parse(&format!("{}@b.c", "a".repeat(65))).is_err());
        assert!(Email::parse(&format!("a@{}.c", "b".repeat(300))).is_err());
        assert!(Email::parse("o'neil+tag@sub.example.co.uk").is_ok());
        assert!(Email::parse("root@localhost").is_ok());
    }

    #[test]
    fn a_password_that_is_guessed_first_is_refused() {
        let email = Email::parse("zoe.miller@example.com").unwrap();
        let check =
            |text: &str| Password::parse("password", text).unwrap().check_strength("password", &email);
        for bad in ["password", "Password123", "QWERTY", "123456", "zoe.miller", "Zoe.Miller@Example.com"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["correct horse", "zoe.miller's cat", "tr0mbone-vivid"] {
            assert!(check(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_password_has_bounds_and_one_form() {
        assert!(Password::parse("password", "12345").is_err());
        assert!(Password::parse("password", "123456").is_ok());
        assert!(Password::parse("password", &"é".repeat(PASSWORD_LEN_MAX)).is_ok());
        assert!(Password::parse("password", &"a".repeat(PASSWORD_LEN_MAX + 1)).is_err());
        let (composed, apart) =
            (Password::parse("p", "zo\u{eb}zoe").unwrap(), Password::parse("p", "zoe\u{308}zoe").unwrap());
        assert_eq!(composed.as_bytes(), apart.as_bytes());
        assert_eq!(format!("{composed:?}"), "****");
    }

    #[test]
    fn five_failures_wait_a_minute_and_the_wait_grows_to_a_quarter_of_an_hour() {
        let mut throttle = Throttle::default();
        let (email, source) = (Email::fold("a@b.c"), Source::of("10.0.0.1".parse().unwrap()));
        let mut now = 1_000 * SECOND_US;
        let mut waits = Vec::new();
        for _ in 0..6 {
            for _ in 0..5 {
                assert_eq!(throttle.check(&email, source, false, now), Ok(()));
                throttle.failed(&email, source, now);
                now += 1;
            }
            let wait = throttle.by_account.check(&(email.clone(), source), now).unwrap_err();
            waits.push(wait);
            now += i64::try_from(wait).unwrap() * SECOND_US;
        }
        assert_eq!(waits, [60, 120, 240, 480, 900, 900]);
        // Another source and another account go on.
        let elsewhere = Source::of("10.0.0.2".parse().unwrap());
        assert_eq!(throttle.check(&email, elsewhere, false, now), Ok(()));
        assert_eq!(throttle.check(&Email::fold("x@b.c"), source, false, now), Ok(()));
    }

    #[test]
    fn thirty_failures_of_one_source_throttle_every_account_from_there() {
        let mut throttle = Throttle::default();
        let source = Source::of("2001:db8::1".parse().unwrap());
        let neighbour = Source::of("2001:db8::ffff".parse().unwrap());
        assert_eq!(source, neighbour, "one /64 is one source");
        for i in 0..30 {
            assert_eq!(throttle.check(&Email::fold(&format!("u{i}@b.c")), source, false, 1), Ok(()));
            throttle.failed(&Email::fold(&format!("u{i}@b.c")), source, 1);
        }
        assert!(throttle.check(&Email::fold("fresh@b.c"), neighbour, false, 2).is_err());
        assert_eq!(Source::of("::ffff:10.0.0.1".parse().unwrap()), Source::of("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn many_addresses_have_one_guess_each_and_the_owner_is_never_locked_out() {
        let mut throttle = Throttle::default();
        let (email, now) = (Email::fold("a@b.c"), 1_000 * SECOND_US);
        let from = |n: u8| Source::of(std::net::IpAddr::from([10, 0, 0, n]));
        let mut tried = 0;
        for _ in 0..4 {
            for n in 0..30 {
                if throttle.check(&email, from(n), false, now).is_ok() {
                    throttle.failed(&email, from(n), now);
                    tried += 1;
                }
            }
        }
        assert_eq!(tried, 30, "120 guesses");
        assert_eq!(throttle.check(&email, from(3), false, now + 1), Err(900));
        assert_eq!(throttle.check(&email, from(3), true, now + 1), Ok(()), "where the owner was before");
        assert_eq!(throttle.check(&email, from(99), false, now + 1), Ok(()), "the owner somewhere new");
        assert_eq!(throttle.check(&Email::fold("x@b.c"), from(3), false, now + 1), Ok(()));
    }

    #[test]
    fn successes_are_not_counted_and_memory_is_bounded() {
        let mut throttle = Throttle::default();
        let (email, source) = (Email::fold("a@b.c"), Source::of("10.0.0.1".parse().unwrap()));
        for _ in 0..4 {
            throttle.failed(&email, source, 1);
        }
        throttle.succeeded(&email, source);
        throttle.failed(&email, source, 2);
        assert_eq!(throttle.check(&email, source, false, 3), Ok(()));
        let mut counter = Counter::new(5);
        for i in 0..(ENTRIES_MAX as i64 + 500) {
            counter.failed(i, 1);
            counter.failed(i, i);
        }
        assert!(counter.entries.len() <= ENTRIES_MAX);
        assert!(counter.entries.contains_key(&(ENTRIES_MAX as i64 + 499)));
    }
}
