//! Moving up: what `fafnir up` had stored, restored into Postgres and an engine volume, on nine processes.

use crate::{
    cluster::{Cluster, External, SIMULATOR},
    harness::{Answer, Shell, Stack},
};
use serde_json::Value;

/// Whose members see what they see.
const MEMBERS: [&str; 2] = ["admin@test.com", "user@test.com"];

/// What a member sees of what is stored.
fn seen(member: &Shell) -> [Value; 4] {
    let listed =
        [&["order", "list"][..], &["watchlist"], &["account", "list"]].map(|asked| member.json(asked));
    let [orders, watchlist, accounts] = listed;
    [orders, watchlist, accounts, member.portfolio()]
}

/// Deals, a partial fill, a resting order, a stop that waits, money in and out.
fn lived(seller: &Shell, buyer: &Shell) {
    seller.json(&["order", "place", "sell", "NVDA", "30", "--price", "148.00"]);
    let buy = buyer.json(&["order", "place", "buy", "NVDA", "12", "--price", "148.00", "--wait", "20"]);
    assert_eq!(buy["state"], "FILLED", "{buy}");
    buyer.json(&["order", "place", "buy", "KO", "7", "--price", "60.00"]);
    let stop = buyer.json(&["order", "place", "sell", "NVDA", "5", "--stop", "120.00"]);
    let gone = buyer.json(&["order", "place", "buy", "KO", "1", "--price", "61.00"]);
    buyer.json(&["order", "cancel", gone["id"].as_str().unwrap()]);
    buyer.until(&["order", "list"], "the cancel, and the stop", |orders| {
        let state =
            |id: &Value| orders.as_array().unwrap().iter().find(|o| o["id"] == *id).map(|o| &o["state"]);
        state(&gone["id"]).is_some_and(|s| s == "CANCELED") && state(&stop["id"]).is_some()
    });
}

#[test]
fn what_one_process_stored_goes_on_as_nine_on_servers() {
    let Some(external) = External::named() else { return };
    let mut one = Stack::up(&["--no-sim"]);
    let [seller, buyer] = MEMBERS.map(|member| one.signed_in(member));
    lived(&seller, &buyer);
    let (audited, before) = (buyer.audit(), [seen(&seller), seen(&buyer)]);
    let backup = one.dir.path().join("backup");
    let said = Answer::of(buyer.command(&["backup", backup.to_str().unwrap()]).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(one.process.interrupt(), Some(0), "{}", one.process.log());

    let (mut nine, said) = Cluster::restored(external, &backup);
    assert!(said.stderr.contains("no findings"), "{said:?}");
    let [seller, buyer] = MEMBERS.map(|member| nine.signed_in(member));
    assert_eq!([seen(&seller), seen(&buyer)], before, "what they see");
    let again = nine.audit();
    for what in ["openOrders", "transactions", "trades"] {
        assert_eq!(again[what], audited[what], "{what} is the same");
    }
    // The books go on where they stood: what rested is filled, and the market opens.
    let rest = buyer.json(&["order", "place", "buy", "NVDA", "18", "--price", "148.00", "--wait", "20"]);
    assert_eq!(rest["state"], "FILLED", "{rest}");
    nine.start(SIMULATOR);
    let market = buyer.json(&["order", "place", "buy", "AAPL", "2", "--wait", "20"]);
    assert_eq!(market["state"], "FILLED", "{market}");
    nine.stop(SIMULATOR);
    nine.audit();
}
