//! Naive baseline: BTreeMap<price, VecDeque<Order>> per side + std HashMap (SipHash) index; cancel scans its level.
use super::wl::*;
use std::collections::{BTreeMap, HashMap, VecDeque};
#[derive(Clone, Copy)]
pub struct Ord {
    pub id: u64,
    pub qty: u32,
}
#[derive(Default)]
pub struct Book {
    pub bids: BTreeMap<u32, VecDeque<Ord>>,
    pub asks: BTreeMap<u32, VecDeque<Ord>>,
    pub idx: HashMap<u64, (u8, u32)>,
}
impl Book {
    pub fn best_bid(&self) -> Option<u32> {
        self.bids.last_key_value().map(|x| *x.0)
    }
    pub fn best_ask(&self) -> Option<u32> {
        self.asks.first_key_value().map(|x| *x.0)
    }
    /// Returns the unfilled quantity.
    pub fn cross(&mut self, id: u64, side: u8, limit: u32, mut qty: u32, mut f: impl FnMut(u64, u32, u32, bool)) -> u32 {
        let _ = id;
        while qty > 0 {
            let opp = if side == 0 { &mut self.asks } else { &mut self.bids };
            let e = if side == 0 { opp.first_entry() } else { opp.last_entry() };
            let Some(mut e) = e else { break };
            let p = *e.key();
            if (side == 0 && p > limit) || (side == 1 && p < limit) {
                break;
            }
            let q = e.get_mut();
            while qty > 0 {
                let Some(o) = q.front_mut() else { break };
                let x = qty.min(o.qty);
                qty -= x;
                o.qty -= x;
                let done = o.qty == 0;
                f(o.id, p, x, done);
                if done {
                    self.idx.remove(&o.id);
                    q.pop_front();
                }
            }
            if q.is_empty() {
                e.remove();
            }
        }
        qty
    }
    pub fn rest(&mut self, id: u64, side: u8, price: u32, qty: u32) {
        let s = if side == 0 { &mut self.bids } else { &mut self.asks };
        s.entry(price).or_default().push_back(Ord { id, qty });
        self.idx.insert(id, (side, price));
    }
    pub fn cancel(&mut self, id: u64) -> bool {
        let Some((side, price)) = self.idx.remove(&id) else { return false };
        let s = if side == 0 { &mut self.bids } else { &mut self.asks };
        let q = s.get_mut(&price).unwrap();
        let i = q.iter().position(|o| o.id == id).unwrap();
        q.remove(i);
        if q.is_empty() {
            s.remove(&price);
        }
        true
    }
}
pub struct Naive {
    books: Vec<Book>,
    st: Stats,
}
impl Engine for Naive {
    const NAME: &'static str = "naive-btree-vecdeque";
    fn new(n: usize, _: usize) -> Self {
        Naive { books: (0..n).map(|_| Book::default()).collect(), st: Stats::default() }
    }
    fn op(&mut self, m: &Msg) {
        let b = &mut self.books[m.sym as usize];
        let st = &mut self.st;
        match m.op {
            ADD | REPLACE => {
                if m.op == REPLACE {
                    b.cancel(m.old_id);
                }
                let r = b.cross(m.id, m.side, m.price, m.qty, |mk, p, q, _| st.trade(mk, m.id, p, q));
                if r > 0 {
                    b.rest(m.id, m.side, m.price, r)
                }
            }
            CANCEL => {
                b.cancel(m.old_id);
            }
            _ => {
                let lim = if m.op == IOC { m.price } else if m.side == 0 { u32::MAX } else { 0 };
                b.cross(m.id, m.side, lim, m.qty, |mk, p, q, _| st.trade(mk, m.id, p, q));
            }
        }
    }
    fn stats(&mut self) -> &mut Stats {
        &mut self.st
    }
    fn live(&self) -> Option<u64> {
        Some(self.books.iter().map(|b| b.idx.len() as u64).sum())
    }
}
