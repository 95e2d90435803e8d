//! The projection of executions into orders and fills: effect, position and private updates in one transaction.

use super::{
    super::{
        domain::{
            Entry,
            lifecycle::{self, Event},
        },
        watch::EngineRefusal,
    },
    commands, fill_put, open_orders_add, opposite, order_get, order_update, replace_delete, replace_get,
    update_put,
};
use fafnir_platform::{
    db::{Error, Tx, inbox},
    executions::{self, Applied, Reading},
    params,
};
use fafnir_proto::v1::{ExecKind, Execution, ExecutionBatch, Fill, Order};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// What the memory must learn after the commit.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    pub applied: Applied,
    /// Orders as they now are, with the refusal of a cancel or replace.
    pub orders: Vec<(Order, Option<EngineRefusal>)>,
    /// Last traded prices.
    pub last_trades: Vec<(String, i64)>,
    /// Facts that contradict what is known, put away for a person.
    pub alarms: Vec<String>,
}

/// One side of an execution: the order and what happened to it.
struct Part<'a> {
    order_id: &'a str,
    event: Event,
    fill: Option<Fill>,
}

struct Projector<'a> {
    tx: &'a mut dyn Tx,
    now_us: i64,
    entries: BTreeMap<String, Entry>,
    dirty: BTreeMap<String, Option<EngineRefusal>>,
    learned: Learned,
}

/// Stores the outcomes that follow our positions, and the positions.
pub fn apply(tx: &mut dyn Tx, batches: &[ExecutionBatch], now_us: i64) -> Result<Learned, Error> {
    let mut positions: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut last_trades: BTreeMap<&str, i64> = BTreeMap::new();
    let mut cmd_seqs = BTreeSet::new();
    let mut p = Projector {
        tx,
        now_us,
        entries: BTreeMap::new(),
        dirty: BTreeMap::new(),
        learned: Learned::default(),
    };
    for batch in batches {
        let symbol = batch.symbol.as_str();
        if !positions.contains_key(symbol) {
            let position = inbox::position(p.tx, symbol)?;
            positions.insert(symbol, (position, position));
        }
        let Some((_, last_seq)) = positions.get_mut(symbol) else { continue };
        let new = match executions::read(*last_seq, &batch.executions) {
            Reading::New(new) => new,
            Reading::Seen => continue,
            Reading::Gap => {
                p.learned.applied.gap = true;
                continue;
            }
        };
        for execution in new {
            *last_seq = execution.seq;
            p.learned.applied.executions += 1;
            if execution.kind() == ExecKind::Trade {
                last_trades.insert(symbol, execution.price_e4);
            }
            if execution.cmd_seq != 0 {
                cmd_seqs.insert(execution.cmd_seq);
            }
            p.execution(symbol, execution)?;
        }
    }
    p.write()?;
    let Projector { tx, mut learned, .. } = p;
    for cmd_seq in cmd_seqs {
        commands::command_delete(tx, cmd_seq)?;
    }
    for (symbol, price_e4) in last_trades {
        tx.execute(
            "INSERT INTO last_trades (symbol, price_e4) VALUES (?1, ?2) \
             ON CONFLICT (symbol) DO UPDATE SET price_e4 = excluded.price_e4",
            params![symbol, price_e4],
        )?;
        learned.last_trades.push((symbol.to_owned(), price_e4));
    }
    for (symbol, (before, after)) in positions {
        if after > before {
            inbox::advance(tx, symbol, after)?;
        }
    }
    Ok(learned)
}

impl Projector<'_> {
    fn execution(&mut self, symbol: &str, e: &Execution) -> Result<(), Error> {
        let fill = |order_id: &str, maker: bool| Fill {
            exec_id: format!("{symbol}:{}", e.seq),
            order_id: order_id.to_owned(),
            symbol: symbol.to_owned(),
            side: if maker { opposite(e.side()).into() } else { e.side },
            price_e4: e.price_e4,
            quantity_e4: e.quantity_e4,
            maker,
            time_us: e.time_us,
        };
        let part = |event| Part { order_id: &e.order_id, event, fill: None };
        let code = || e.reason.clone();
        let parts = match e.kind() {
            ExecKind::Accepted => {
                vec![part(Event::Accepted { held: e.held, stop_e4: e.stop_price_e4 })]
            }
            ExecKind::Rejected => vec![part(Event::Rejected { code: code() })],
            ExecKind::Triggered => vec![part(Event::Triggered)],
            ExecKind::Canceled => vec![part(Event::Canceled { code: code() })],
            ExecKind::Expired => vec![part(Event::Expired { code: code() })],
            ExecKind::ReplaceRejected => vec![part(Event::ReplaceRejected)],
            ExecKind::CancelRejected => vec![part(Event::CancelRejected)],
            ExecKind::Replaced => {
                let replace = replace_get(self.tx, &e.order_id)?;
                vec![part(Event::Replaced {
                    version: e.version,
                    total_e4: e.quantity_e4,
                    open_e4: e.open_e4,
                    price_e4: e.price_e4,
                    stop_e4: e.stop_price_e4,
                    cap_e4: replace.filter(|w| w.version == e.version).map(|w| w.cap_price_e4),
                })]
            }
            ExecKind::Trade => {
                let filled =
                    |open_e4| Event::Filled { price_e4: e.price_e4, quantity_e4: e.quantity_e4, open_e4 };
                vec![
                    Part {
                        order_id: &e.maker_order_id,
                        event: filled(e.maker_open_e4),
                        fill: Some(fill(&e.maker_order_id, true)),
                    },
                    Part {
                        order_id: &e.order_id,
                        event: filled(e.open_e4),
                        fill: Some(fill(&e.order_id, false)),
                    },
                ]
            }
            ExecKind::Decremented => {
                let decremented = |open_e4| Event::Decremented { quantity_e4: e.quantity_e4, open_e4 };
                vec![
                    Part { order_id: &e.maker_order_id, event: decremented(e.maker_open_e4), fill: None },
                    part(decremented(e.open_e4)),
                ]
            }
            ExecKind::StateChanged => Vec::new(),
            ExecKind::Unspecified => return self.dead_letter(symbol, e, "an execution of unknown kind"),
        };
        for part in parts {
            self.part(symbol, e, part)?;
        }
        Ok(())
    }

    fn part(&mut self, symbol: &str, e: &Execution, part: Part<'_>) -> Result<(), Error> {
        let id = part.order_id;
        if !self.entries.contains_key(id) {
            match order_get(self.tx, id)? {
                Some(entry) => {
                    self.entries.insert(id.to_owned(), entry);
                }
                // A refusal to touch an order that ended long ago and is pruned says nothing new.
                None if matches!(part.event, Event::CancelRejected | Event::ReplaceRejected) => {
                    return Ok(());
                }
                None => return self.dead_letter(symbol, e, &format!("order {id} is not known here")),
            }
        }
        let Some(entry) = self.entries.get_mut(id) else { return Ok(()) };
        match lifecycle::apply(entry, &part.event, e.time_us) {
            Err(alarm) => return self.dead_letter(symbol, e, &alarm.to_string()),
            Ok(false) => return Ok(()),
            Ok(true) => {}
        }
        if let Some(fill) = &part.fill {
            fill_put(self.tx, &entry.order.user_id, e.seq, fill)?;
        }
        if entry.order.state().has_ended() {
            open_orders_add(self.tx, &entry.order.user_id, -1)?;
            replace_delete(self.tx, id)?;
        } else if matches!(part.event, Event::Replaced { .. } | Event::ReplaceRejected) {
            replace_delete(self.tx, id)?;
        }
        update_put(self.tx, entry, part.fill)?;
        let refused = self.dirty.entry(id.to_owned()).or_default();
        match part.event {
            Event::CancelRejected => *refused = Some(EngineRefusal::Cancel(e.reason.clone())),
            Event::ReplaceRejected => *refused = Some(EngineRefusal::Replace(e.reason.clone())),
            _ => {}
        }
        Ok(())
    }

    fn dead_letter(&mut self, symbol: &str, e: &Execution, why: &str) -> Result<(), Error> {
        inbox::dead_letter_put(
            self.tx,
            &format!("{symbol}:{}", e.seq),
            &e.encode_to_vec(),
            why,
            self.now_us,
        )?;
        self.learned.alarms.push(format!("{symbol}:{}: {why}", e.seq));
        Ok(())
    }

    fn write(&mut self) -> Result<(), Error> {
        for (id, refused) in std::mem::take(&mut self.dirty) {
            if let Some(entry) = self.entries.get(&id) {
                order_update(self.tx, entry)?;
                self.learned.orders.push((entry.order.clone(), refused));
            }
        }
        Ok(())
    }
}
