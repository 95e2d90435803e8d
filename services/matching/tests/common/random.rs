//! Random commands: every order type, time in force, self-trade mode, replace, halt, phase and band, good and bad.

use std::collections::BTreeMap;

use fafnir_matching::*;

/// SplitMix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Makes commands for a book and keeps the caller's side of it: numbers and slots.
pub struct Caller {
    pub rng: Rng,
    next_id: OrderId,
    now: Time,
    centre: Ticks,
    width: u64,
    /// How far from the centre one price in four may lie; 0 = none.
    far: u64,
    pub slots: BTreeMap<OrderId, Slot>,
    /// Some that were open once.
    gone: Vec<(OrderId, Slot)>,
}

impl Caller {
    pub fn new(seed: u64) -> Caller {
        let mut rng = Rng(seed);
        let centre = if rng.one_in(8) { 5 } else { 1_000_000 + rng.below(1000) as u32 };
        let width = [3, 8, 20][rng.below(3) as usize];
        Caller { rng, next_id: 1, now: 1, centre, width, far: 0, slots: BTreeMap::new(), gone: Vec::new() }
    }

    /// Prices up to 200,000 ticks apart: in the middle, at both ends, and around prices where blocks of levels and their
    /// forks meet, as bids and as asks.
    pub fn far(seed: u64) -> Caller {
        let centres =
            [200_100, 1 << 20, 1 << 24, !(1 << 20), 3 << 27, 5, 100_000, MAX_PRICE - 3, MAX_PRICE - 100_000];
        let mut caller = Caller::new(seed);
        caller.centre = centres[caller.rng.below(centres.len() as u64) as usize];
        caller.far = [1, 900, 100_000][caller.rng.below(3) as usize];
        caller
    }

    fn price(&mut self) -> Ticks {
        if self.rng.one_in(40) {
            return [0, 1, MAX_PRICE, u32::MAX, self.centre / 2, self.centre.saturating_mul(3)]
                [self.rng.below(6) as usize];
        }
        let mut spread = if self.rng.one_in(15) { 40 * self.width } else { self.width };
        if self.far > 0 && self.rng.one_in(4) {
            spread = self.far;
        }
        let offset = self.rng.below(2 * spread + 1);
        (u64::from(self.centre) + offset).saturating_sub(spread).clamp(1, u64::from(u32::MAX)) as u32
    }

    fn qty(&mut self) -> Lots {
        match self.rng.below(60) {
            0 => 0,
            1 => MAX_QTY + self.rng.below(2),
            2..8 => 1 + self.rng.below(1000),
            _ => 1 + self.rng.below(20),
        }
    }

    fn id(&mut self) -> OrderId {
        if self.rng.one_in(60) {
            return [0, self.next_id - 1, u64::MAX][self.rng.below(3) as usize];
        }
        self.next_id += 1 + self.rng.below(2);
        self.next_id - 1
    }

    fn target(&mut self) -> (OrderId, Slot) {
        if self.slots.is_empty() || self.rng.one_in(20) {
            let any = ((1 << 40) + self.rng.below(50), Slot(self.rng.below(4000) as u32));
            let at = self.rng.below(self.gone.len() as u64 + 1) as usize;
            return *self.gone.get(at).unwrap_or(&any);
        }
        let at = self.rng.below(self.slots.len() as u64) as usize;
        self.slots.iter().nth(at).map(|(&id, &slot)| (id, slot)).unwrap()
    }

    fn new_order(&mut self) -> NewOrder {
        let id = self.id();
        let kind = match self.rng.below(20) {
            0..3 => Kind::Market,
            3..5 => Kind::Stop,
            5..7 => Kind::StopLimit,
            7 => Kind::TrailingAmount,
            8 => Kind::TrailingPercent,
            _ => Kind::Limit,
        };
        let tif = Tif::from_code([0, 1, 1, 1, 1, 2, 3, 4, 5, 6][self.rng.below(10) as usize]).unwrap();
        let tif = if kind.is_stop() && !self.rng.one_in(10) && !matches!(tif, Tif::Day | Tif::Gtc | Tif::Gtd)
        {
            Tif::Gtc
        } else {
            tif
        };
        let qty = self.qty();
        let mut order = NewOrder {
            kind,
            tif,
            self_trade: SelfTrade::from_code(self.rng.below(4) as u8).unwrap(),
            post_only: self.rng.one_in(if tif.is_for_auction() { 60 } else { 12 }),
            display: if self.rng.one_in(if tif.is_for_auction() { 60 } else { 8 }) {
                self.rng.below(qty.clamp(1, 30) + 2)
            } else {
                0
            },
            stop: if kind.is_stop() { self.price() } else { 0 },
            expire: self.now + self.rng.below(20),
            ..NewOrder::limit(id, self.rng.below(6) as u32, side(self.rng.below(2)), qty, self.price())
        };
        if kind.is_trailing() {
            order.trail = match self.rng.below(15) {
                0 => 0,
                1 => u32::MAX,
                _ => 1 + self.rng.below(2 * self.width) as u32,
            };
            order.price = self.rng.below(2 * self.width) as u32;
            if self.rng.one_in(2) {
                order.stop = 0;
            }
        }
        order
    }

    pub fn command(&mut self) -> Command {
        if self.rng.one_in(50) {
            self.centre = (u64::from(self.centre) + self.rng.below(7)).saturating_sub(3).max(1) as u32;
        }
        match self.rng.below(200) {
            0..110 => Command::New(self.new_order()),
            110..150 => {
                let (id, slot) = self.target();
                Command::Cancel { id, slot }
            }
            150..156 => {
                let (id, slot) = self.target();
                Command::Reduce { id, slot, qty: self.qty() }
            }
            156..184 => {
                let (id, slot) = self.target();
                let price = if self.rng.one_in(2) { 0 } else { self.price() };
                let qty = if self.rng.one_in(3) { 0 } else { self.qty() };
                let new_id = if self.rng.one_in(5) { self.id() } else { 0 };
                let stop = if self.rng.one_in(6) { self.price() } else { 0 };
                let display = if self.rng.one_in(6) { self.rng.below(12) } else { 0 };
                let trail = match self.rng.below(40) {
                    0 => u32::MAX,
                    1..6 => 1 + self.rng.below(2 * self.width) as u32,
                    _ => 0,
                };
                Command::Replace(Replace { id, slot, new_id, qty, price, stop, display, trail })
            }
            184 => Command::CancelAll {
                owner: if self.rng.one_in(4) { 0 } else { 1 + self.rng.below(5) as u32 },
            },
            185..188 => {
                self.now += self.rng.below(10);
                Command::Expire { now: self.now }
            }
            188 => {
                self.now += self.rng.below(10);
                Command::DayEnd { now: self.now }
            }
            189 => Command::Halt,
            190..192 => Command::Resume,
            192..194 => Command::SetPhase { phase: Phase::from_code(self.rng.below(5) as u8).unwrap() },
            194..198 => Command::SetPhase { phase: Phase::Continuous },
            _ => match self.rng.below(4) {
                0 => {
                    let reference = if self.rng.one_in(2) { 0 } else { self.price() };
                    Command::SetBand { reference, bps: self.rng.below(2) as u32 }
                }
                1 => Command::SetBand { reference: self.price(), bps: self.rng.below(11_000) as u32 },
                _ => {
                    // A few ticks wide.
                    let bps = 1 + (self.width * 10_000 / u64::from(self.centre.max(1))).min(9_000) as u32;
                    Command::SetBand { reference: self.centre, bps }
                }
            },
        }
    }

    /// Keeps up with the events of a command.
    pub fn hear(&mut self, events: &[Event]) {
        for event in events {
            match event.what {
                What::Accepted { id, slot, .. } if slot != Slot::NONE => {
                    self.slots.insert(id, slot);
                }
                What::Replaced { old, id, slot, .. } => {
                    self.slots.remove(&old);
                    self.slots.insert(id, slot);
                }
                What::Trade { maker, taker, maker_open, taker_open, .. } => {
                    for (id, open) in [(maker, maker_open), (taker, taker_open)] {
                        if open == 0 {
                            self.forget(id);
                        }
                    }
                }
                What::Canceled { id, .. } | What::Expired { id, .. } => self.forget(id),
                _ => {}
            }
        }
    }

    fn forget(&mut self, id: OrderId) {
        if let Some(slot) = self.slots.remove(&id) {
            self.gone.push((id, slot));
        }
    }
}

pub fn side(code: u64) -> Side {
    if code == 0 { Side::Buy } else { Side::Sell }
}
