//! `fafnir market play`: a scenario, step by step at its times, through the doors that an operator has.

use super::operate::{change_bps, state_of};
use crate::{
    args::{Global, MarketState, Where},
    client::Client,
    output::{Error, Exit, Out, Result},
};
use clap::ValueEnum as _;
use fafnir_proto::{
    reason::Reason,
    v1::{News, SetTradingStateRequest, SetVolatilityBandRequest},
};
use serde::Deserialize;
use serde_json::json;
use std::{fs, path::Path};
use tokio::time::{Duration, Instant};

/// The scenarios that come with the program.
const BUILT_IN: [(&str, &str); 4] = [
    ("opening-cross", include_str!("../../../seeds/scenarios/opening-cross.toml")),
    ("flash-crash", include_str!("../../../seeds/scenarios/flash-crash.toml")),
    ("squeeze", include_str!("../../../seeds/scenarios/squeeze.toml")),
    ("circuit-breaker", include_str!("../../../seeds/scenarios/circuit-breaker.toml")),
];

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// Steps of a scenario, and the seconds after which its last one comes.
const STEPS_MAX: usize = 1_000;
const SECONDS_MAX: u64 = 86_400;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    what: String,
    /// Of every step that names no other.
    symbol: String,
    step: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Seconds since the beginning.
    after_s: u64,
    symbol: Option<String>,
    /// What is done: one of the three.
    news: Option<String>,
    state: Option<String>,
    band_bps: Option<u32>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    News(i32),
    State(MarketState),
    Band(u32),
}

impl Step {
    fn act(&self) -> Option<std::result::Result<Act, String>> {
        let one = match (&self.news, &self.state, self.band_bps) {
            (Some(text), None, None) => change_bps(text).map(Act::News),
            (None, Some(text), None) => MarketState::from_str(text, true).map(Act::State),
            (None, None, Some(bps)) => Ok(Act::Band(bps)),
            _ => return None,
        };
        Some(one)
    }
}

/// Seconds since the beginning, the symbol, and what is done with it then.
type Due = (u64, String, Act);

/// What a scenario is, and its steps by time.
fn parse(name: &str, text: &str, symbol: Option<&str>) -> Result<(String, Vec<Due>)> {
    let bad = |what: String| Error::new(Exit::Usage, format!("{name}: {what}")).code(Reason::SEEDS);
    let scenario: Scenario = toml::from_str(text).map_err(|e| bad(e.to_string().replace('\n', " ")))?;
    if scenario.step.len() > STEPS_MAX {
        return Err(bad(format!("has {} steps, of at most {STEPS_MAX}", scenario.step.len())));
    }
    let mut steps = Vec::new();
    for (n, step) in scenario.step.iter().enumerate() {
        let of_step = |what: String| bad(format!("step[{n}]: {what}"));
        if step.after_s > SECONDS_MAX {
            return Err(of_step(format!("after_s must be at most {SECONDS_MAX}")));
        }
        let act = step.act().ok_or_else(|| of_step("needs one of news, state and band_bps".to_owned()))?;
        let symbol = step.symbol.as_deref().or(symbol).unwrap_or(&scenario.symbol).to_uppercase();
        steps.push((step.after_s, symbol, act.map_err(of_step)?));
    }
    steps.sort_by_key(|(after_s, ..)| *after_s);
    Ok((scenario.what, steps))
}

pub async fn play(global: &Global, at: &Where, name: &str, symbol: Option<&str>, out: Out) -> Result {
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    let text = match built_in {
        Some(text) => text,
        None => fs::read_to_string(Path::new(name)).map_err(|e| {
            let names = BUILT_IN.map(|(known, _)| known).join(", ");
            Error::new(Exit::Usage, format!("{name}: {e}"))
                .code(Reason::SEEDS)
                .hint(format!("a scenario is a file, or one of {names}"))
        })?,
    };
    let (what, steps) = parse(name, &text, symbol)?;
    let mut client = Client::signed_in(global, at).await?;
    out.note(&what);
    perform(&mut client, steps, out).await
}

/// News that stops trading: the symbol is halted, hears the news, gathers orders for the last third of the time, and opens by
/// one auction. Whatever comes in between, it opens again.
pub async fn halt_for_news(
    client: &mut Client,
    symbol: &str,
    change_bps: i32,
    halt_s: u64,
    out: Out,
) -> Result {
    let steps = [
        (0, Act::State(MarketState::Halted)),
        (0, Act::News(change_bps)),
        (halt_s - halt_s / 3, Act::State(MarketState::PreOpen)),
        (halt_s, Act::State(MarketState::Open)),
    ];
    let steps = steps.map(|(after_s, act)| (after_s, symbol.to_owned(), act)).to_vec();
    let done = perform(client, steps, out).await;
    if done.is_err() {
        // Nobody else would end the halt; where it did not begin, open is what it is.
        let open = vec![(0, symbol.to_owned(), Act::State(MarketState::Open))];
        perform(client, open, out).await?;
    }
    done
}

/// Does the steps at their times.
async fn perform(client: &mut Client, steps: Vec<Due>, out: Out) -> Result {
    let begun = Instant::now();
    for (after_s, symbol, act) in steps {
        tokio::select! {
            () = tokio::time::sleep_until(begun + Duration::from_secs(after_s)) => {}
            _ = tokio::signal::ctrl_c() => return Err(Error::new(Exit::Interrupted, "interrupted")),
        }
        let said = match act {
            Act::News(change_bps) => {
                let news = News { symbol: symbol.clone(), change_bps, time_us: 0 };
                let sent = client.request(news);
                client.terminal.publish_news(sent).await?;
                format!("news, {change_bps:+} bp")
            }
            Act::State(state) => {
                let set = SetTradingStateRequest { symbol: symbol.clone(), state: state_of(state).into() };
                let sent = client.request(set);
                client.terminal.set_trading_state(sent).await?;
                format!("{state:?}").to_lowercase()
            }
            Act::Band(bps) => {
                let set = SetVolatilityBandRequest { symbol: symbol.clone(), volatility_band_bps: bps };
                let sent = client.request(set);
                client.terminal.set_volatility_band(sent).await?;
                format!("band of {bps} bp")
            }
        };
        let document = json!({"afterSeconds": after_s, "symbol": symbol, "what": said});
        out.data(&document, || format!("{after_s:>5} s  {symbol}: {said}\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_that_come_along_are_well_formed() {
        for (name, text) in BUILT_IN {
            let (_, steps) = parse(name, text, None).unwrap();
            assert!(steps.len() >= 3, "{name}");
            let (_, others) = parse(name, text, Some("ko")).unwrap();
            assert!(others.iter().all(|(_, symbol, _)| symbol == "KO"), "{name}");
        }
    }

    #[test]
    fn a_wrong_step_is_named() {
        let of = |step: &str| {
            let text = format!("what = \"x\"\nsymbol = \"KO\"\n[[step]]\n{step}");
            parse("x.toml", &text, None).unwrap_err().message
        };
        assert_eq!(of("after_s = 0"), "x.toml: step[0]: needs one of news, state and band_bps");
        assert!(of("after_s = 0\nnews = \"-95\"").starts_with("x.toml: step[0]: PERCENT must be -90 to 100"));
        assert!(of("after_s = 90000\nband_bps = 1").contains("after_s must be at most 86400"));
        assert!(of("after_s = 0\nstate = \"asleep\"").starts_with("x.toml: step[0]: "));
        assert!(of("soon = 1").contains("soon"));
    }
}
