//! The limit order book of fafnir and its rules: pure, integer, deterministic.
//!
//! One [`Book`] per symbol. A [`Command`] goes in, at least one [`Event`] comes out; a refused command says why and
//! changes nothing. Prices are integer ticks, quantities integer lots. The book never reads a clock (times come with
//! commands), has no randomness, no float, no hash map, no I/O and no dependency: the same commands give the same
//! events and the same bytes of [`Book::snapshot`] everywhere.
//!
//! # Who names what
//! - The caller numbers its orders: [`OrderId`], growing within a book (numbers may be left out, and may be shared
//!   among books). The number is in every event about the order.
//! - The book answers an order that can rest with its [`Slot`]: [`What::Accepted`]. Cancel and replace name
//!   `(id, slot)`, so the book looks nothing up; a pair that is not open (a slot that now holds another order) is
//!   refused with [`Reason::UnknownOrder`]. Slots are as good as the book in memory: after [`Book::restore`] read the
//!   new ones from [`Book::orders`].
//! - Owners are numbers too ([`Owner`]); 0 takes no part in self-trade prevention.
//!
//! The caller's side is then a map from its client's ids to `(id, slot)`: put in on `Accepted`, moved on `Replaced`
//! with a new number, taken out on a terminal event: `Trade` with 0 open (for maker and taker), `Canceled`, `Expired`.
//!
//! # Reading events
//! `Accepted` → any number of `Trade`s → `Canceled` if the remainder may not rest. Without a terminal event the order
//! rests. A stop is `Accepted { held: true }`; `Triggered` makes it a new order in its turn. Reached stops enter after
//! the match that reached them, in the order stop price, then time.
//!
//! # Phases
//! A book trades continuously unless told otherwise. [`Command::SetPhase`] to a call (pre-open, auction) lets orders
//! gather; leaving the call runs the auction at the price of most volume, least imbalance, nearest to the reference
//! ([`Book::indicative`] tells it beforehand). [`Command::SetBand`] sets a volatility band: an order that would trade
//! outside pauses the symbol into the auction phase. [`Command::Halt`] stops everything but cancels and expiry.
//!
//! # Bounds
//! [`MAX_ORDERS`] open orders, [`MAX_PARTS`] parts of an iceberg, [`MAX_QTY`], [`MAX_PRICE`]. A command's work is
//! bounded by the orders that it touches. Memory: 32 bytes per order at the peak, 56 more where an order needs its cold
//! record (iceberg, GTD, stop, replaced), 8 more where one is partly filled, 32 KiB for the windows of a book that ever had an order; room for orders doubles. The
//! day's end gives free slots at the end back and fills low slots first from then on.
//!
//! # How it is built
//! - Orders are 32-byte records in a slab with `u32` links and a free list; what is rarely needed lies in a second,
//!   cold slab. Levels are nodes of the same slab: the orders of a level form a ring through it, so an order leaves
//!   without a branch. Nothing is allocated in the steady state.
//! - A side's levels lie in a window of 512 directly indexed prices with a bitmap and a cached best, an ordered map
//!   beyond. An order that leaves does not touch the bitmap: whoever looks for the next best takes empty levels out.
//!   Prices are keys that grow towards the better price: one code for both sides.
//! - What each command reads of the book lies in its first cache line: bests, counters, the slab's address.
//! - A plain limit order that meets nobody, a plain order that meets somebody and a cancel take paths of their own; all
//!   other rules live on the general ones. Whatever is rare about a resting order is met apart from the matching loop.
//! - Events go to a [`Sink`], inlined where an event comes about and its kind is known. [`Events`] is one; the benchmark's
//!   keeps each whole record in a ring of 64 and reads it at once.
//! - [`Book::fetch_order`] and [`Book::fetch_neighbours`] let a caller that sees commands coming fetch their cache lines
//!   early.
//!
//! # What was tried, and what it gave
//! `cargo bench -p fafnir-matching` replays the common flow (module [`flow`]) with every feature on and an event per
//! outcome, interleaved with the flow's naive book. Two cores of an EPYC, shared with compilers the whole time: million
//! operations per CPU-second, in brackets the ratio to the naive book of the same run where it ran along. Absolute
//! figures of different rows do not compare, the machine's load changed between them.
//!
//! | Step | A1k | A10k | A100k | B100 |
//! |---|---|---|---|---|
//! | slab, window, bitmap; a list with head and tail per level | 31 | 24 | 6.0 | 6.5 |
//! | levels as nodes of the slab, orders in rings | 32 | 24 | 12 | 5.9 |
//! | a path of its own for the plain passive order | 41 | 26 | – | – |
//! | reading ahead with ordinary loads, 8 to 64 operations (dropped) | – | 18–21 | 8–12 | 9–11 |
//! | without prefetch | 28 (2.6) | 25 (4.3) | 5.8 (4.4) | 8.1 (1.9) |
//! | prefetch 8, 16, 24 operations ahead (A10k too: dropped there) | 35 (3.3) | 22 (3.8) | 13 (11) | 13 (3.2) |
//! | a new order written field by field: a record through the stack stalls the load after it | 35 (3.4) | 31 (4.1) | 19 (12) | 15 (2.8) |
//! | the level's bit cleared without a branch | 37 (3.2) | 30 (4.3) | – | – |
//! | prefetch for every operation alike instead of a branch on its kind | 37 (3.0) | 26 (4.1) | 18 (14) | 16 (3.6) |
//! | phases, auctions, volatility band | 34 (2.9) | 24 (4.3) | – | – |
//! | the driver looks at the kind of an operation once, not again as a command | 33–37 (3.2–3.4) | 24 (4.7–5.0) | – | – |
//! | the whole, at a load of 20 to 28 | 33 (3.0) | 24 (4.2) | 14 (13.8) | – |
//! | the rare path gets a copy of the order, so that the frequent one keeps it in registers; a cancel looks at its order once; from 4,096 open orders on the order itself is fetched 8 operations ahead, below that nothing | 42.5 (3.3) | 37.9 (4.7) | 23.5 (12.7) | 17.9 (2.8) |
//! | sides 256 bytes apart, the next maker fetched while one trades; against the row before in one run | +0 to 4 % | +3 to 5 % | – | +0 to 5 % |
//! | the whole, quiet | 41 (3.2) | 36 (4.3) | 24 (12.2) | 18 (3.4) |
//!
//! Then with the book alone, binaries taking turns, medians of 11 rounds on an otherwise idle machine. `valgrind
//! --tool=callgrind` counted 240 instructions per operation at A10k and 1.2 branches that a simple predictor misses:
//!
//! | Step | A1k | A10k | A100k | B100 |
//! |---|---|---|---|---|
//! | before | 43.2 | 37.0 | 24.3 | 19.5 |
//! | the slot's number fetched 16 operations ahead, the order 8 | 43.2 | 38.1 | – | – |
//! | a leaving order touches no bitmap, and its fields stay in registers: a copy that a cold call takes by reference lies on the stack | 47.7 | 41.0 | – | – |
//! | filled lots of makers in a list of their own (8 bytes instead of a line each), added without a branch | 48.3 | 42.0 | – | – |
//! | the driver compares twice (add, cancel, else) instead of jumping through a table; the rest in a function of its own | 51.2 | 46.6 | 35.4 | 24.3 |
//! | the whole next to the naive book, `cargo bench` | 50.4 (3.8) | 46.3 (5.4) | 36.2 (16.9) | 24.7 (3.4) |
//!
//! Tried in the same way and dropped: the matching loop's counters in locals until its end (−4 %), no test whether a
//! fetched slot exists (−1 to −3 %: a far address costs a walk through the page table), all three fetches at 10,000
//! orders (−8 %), any at 1,000 (−6 %), a call of its own for each seldom kind (−1 to −2 %).
//!
//! Tried earlier and dropped: both neighbours fetched too at 10,000 orders (−5 to −10 %), the order fetched at
//! 1,000 (−3 to −6 %), 5 operations ahead instead of 8 (−4 %), sides aligned to 256 bytes (B100 loses up to a quarter:
//! the books of many symbols meet in few sets of the cache), one comparison for "empty and best" (−2 to −5 %), the new
//! best's first order fetched when a level is used up (nothing).
//!
//! Then on two cores of a Xeon (Emerald Rapids) with noisy neighbours, old and new book of one program taking turns on
//! flows of a million operations, 15 to 30 rounds, median of the pairs; callgrind counted 188 instructions per operation
//! at A1k before and 150 after:
//!
//! | Step, against the row before | A1k | A10k | A100k | B100 |
//! |---|---|---|---|---|
//! | events read where they come about, a ring of 64 instead of a list that is read again | +16 % | +4 % | – | – |
//! | what each command reads in one line of 64 bytes | +5 % | +8 % | +12 % with the row before | +4 % with the row before |
//! | plain takers on a path of their own, a cancel without the general unlink, the band as keys | +4 % | +11 % | +4 % | +8 % |
//! | icebergs, GTD orders and own orders met apart from the matching loop | +3 % | +3 % | +3 % | +2 % |
//! | fetching early without a look whether the slot exists | – | +4 % | +2 % | +3 % |
//! | the first order of the other side no longer fetched | – | – | +6 % | +2 % |
//! | sides without a comparison | +1 % | +4 % | – | – |
//! | windows of 512 levels instead of 1,024 | 0 | −2 % | −1 % | +4 % |
//!
//! Tried in the same way and dropped: one path without a branch for a new order and a cancel (half as many mispredicted
//! branches by callgrind, but 220 instead of 120 instructions: −14 %), the level of a coming price fetched (−3 to −4 %),
//! orders fetched without their neighbours (−3 %), 4 operations ahead instead of 8 (−1 to +1 %), the slab read without
//! bounds checks (+2 to +6 %: not worth what a check of every link is worth).
//!
//! So all four flows stand above their bars (3.3, 5, 6 and 2.5) and about at their goals (5, 7.5, 20 and 5); the README has
//! the figures. Prefetch is the one `unsafe` line of the crate (prefetch.rs): it doubles A100k and nearly doubles B100. One
//! codegen unit for this crate gives 3 to 8 % (the workspace's release profile has it).
//!
//! # Example
//! ```
//! use fafnir_matching::{Book, Command, Events, NewOrder, Reason, Replace, Side, Slot, What};
//! use std::collections::HashMap;
//!
//! let mut book = Book::new();
//! let mut events = Events::new();
//! let mut slots: HashMap<u64, Slot> = HashMap::new(); // the caller's map
//!
//! let mut run = |book: &mut Book, slots: &mut HashMap<u64, Slot>, command: Command| {
//!     events.clear();
//!     book.apply(&command, &mut events);
//!     for event in &events {
//!         match event.what {
//!             What::Accepted { id, slot, .. } if slot != Slot::NONE => {
//!                 slots.insert(id, slot);
//!             }
//!             What::Trade { maker, taker, maker_open, taker_open, .. } => {
//!                 if maker_open == 0 { slots.remove(&maker); }
//!                 if taker_open == 0 { slots.remove(&taker); }
//!             }
//!             What::Canceled { id, .. } | What::Expired { id, .. } => {
//!                 slots.remove(&id);
//!             }
//!             _ => {}
//!         }
//!     }
//!     events.as_slice().to_vec()
//! };
//!
//! // Owner 1 offers 10 lots at 101 ticks, owner 2 buys 4 of them at the market, at most at 105.
//! run(&mut book, &mut slots, Command::New(NewOrder::limit(1, 1, Side::Sell, 10, 101)));
//! let done = run(&mut book, &mut slots, Command::New(NewOrder::market(2, 2, Side::Buy, 4, 105)));
//! assert!(matches!(done[1].what, What::Trade { maker: 1, taker: 2, qty: 4, maker_open: 6, taker_open: 0, price: 101, .. }));
//! assert_eq!((book.best_ask(), book.last_price()), (Some(101), Some(101)));
//!
//! // The offer shrinks to a total of 8 (4 of it filled) and keeps its place.
//! let slot = slots[&1];
//! let done = run(&mut book, &mut slots, Command::Replace(Replace::new(1, slot, 8, 0)));
//! assert!(matches!(done[0].what, What::Replaced { open: 4, kept_place: true, version: 1, .. }));
//!
//! // A snapshot brings the same book back.
//! let mut bytes = Vec::new();
//! book.snapshot(&mut bytes);
//! let mut copy = Book::restore(&bytes).expect("own bytes");
//! assert_eq!(copy.state_hash(), book.state_hash());
//! let slot = copy.orders().find(|order| order.id == 1).map(|order| order.slot).expect("open");
//!
//! let done = run(&mut copy, &mut slots, Command::Cancel { id: 1, slot });
//! assert!(matches!(done[0].what, What::Canceled { id: 1, open: 4, reason: Reason::Requested, .. }));
//! let done = run(&mut copy, &mut slots, Command::Cancel { id: 1, slot });
//! assert!(matches!(done[0].what, What::CancelRejected { reason: Reason::UnknownOrder, .. }));
//! ```

mod auction;
mod book;
mod command;
mod cross;
mod event;
pub mod flow;
pub mod fuzz;
mod index;
mod keyed;
mod ladder;
mod order;
mod prefetch;
mod query;
mod replace;
mod snapshot;
mod stops;

pub use auction::Indicative;
pub use book::Book;
pub use command::{
    Command, Kind, Lots, MAX_BAND_BPS, MAX_ORDERS, MAX_PARTS, MAX_PRICE, MAX_QTY, MAX_TRAIL_BPS, NewOrder,
    OrderId, Owner, Phase, Replace, SelfTrade, Side, Slot, Ticks, Tif, Time,
};
pub use event::{Event, Events, Reason, Sink, What};
pub use keyed::KeyedBook;
pub use query::{OpenOrder, PriceLevel, QueuePosition};
pub use snapshot::Error as SnapshotError;
