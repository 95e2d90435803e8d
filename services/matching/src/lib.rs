//! The limit order book of fafnir and its rules: pure, integer, deterministic.
//!
//! One [`Book`] per symbol. A [`Command`] goes in, at least one [`Event`] comes out; a refused command says why and
//! changes nothing. Prices are integer ticks, quantities integer lots. The book never reads a clock (times come with
//! commands), has no randomness, no float, no hash map, no I/O and no dependency: the same commands give the same
//! events and the same bytes of [`Book::snapshot`] everywhere.
//!
//! # Who names what
//! - The caller numbers its orders: [`OrderId`], growing within a book (numbers may be left out, and may be shared
//!   among books). The number is in every event about the order; a trade names both sides'. Whose numbers come in any
//!   order uses a [`KeyedBook`], which looks orders up itself: the example `first_book` begins with it.
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
//! rests. A stop is `Accepted { held: true }`; `Triggered` makes it a limit order in its turn, at its limit or as far as
//! its protection goes: what does not trade there rests. Any trade of a match elects: stops enter after it, in the order
//! stop price, then time. A trailing stop follows the best trade of a match and says so: `StopMoved`, before the
//! `Triggered` of that match. A stop that the last trade has passed already is refused. A caller whose orders depend on each
//! other lets elected stops in one by one ([`Book::set_stepwise`]).
//!
//! # Phases
//! A book trades continuously unless told otherwise. [`Command::SetPhase`] to a call (pre-open, auction) lets orders
//! gather, market orders too; leaving the call runs the auction at one price ([`Book::indicative`] tells it beforehand, and
//! by which rules). In a call self-trade prevention acts when an order enters. [`Command::SetBand`] sets a volatility band:
//! an order that would trade outside pauses the symbol into the auction phase; stops that were elected gather there. [`Command::Halt`] stops everything but cancels and expiry.
//!
//! # Bounds
//! [`MAX_ORDERS`] open orders, [`MAX_PARTS`] parts of an iceberg, [`MAX_QTY`], [`MAX_PRICE`]. A command's work is
//! bounded by the orders that it touches, wherever their prices stand. Memory: 2 KiB for a book, 32 bytes per order at the
//! peak, 56 more where an order needs its cold record (iceberg, GTD, stop, replaced; eight neighbours share them), 8 per
//! order and level where one was partly filled. Eight neighbouring prices take 256 bytes together as long as an order
//! stands at one of them, and where they are found less than 76 more. Up to 32 such blocks wait a while for another
//! order, then they are used again for other prices or orders. Room doubles when it is used up. The day's end gives free
//! slots at the end back and fills low slots first from then on.
//!
//! # How it is built
//! - Orders are 32-byte records in a slab with `u32` links and a free list; what is rarely needed lies in a second,
//!   cold slab. Levels are nodes of the same slab: the orders of a level form a ring through it, so an order leaves
//!   without a branch. Nothing is allocated in the steady state.
//! - Eight neighbouring levels share a block of the slab, made where an order comes. A side knows 128 blocks by the last
//!   bits of their key; a radix tree finds the others, and the neighbours of a new one: nothing depends on where the
//!   best price stands. A resting order knows its level, so it leaves without a search. Prices are keys that grow towards
//!   the better price: one code for both sides.
//! - What each command reads of the book lies in its first cache line: bests, counters, the slab's address.
//! - A plain limit order that meets nobody, a plain order that meets somebody and a cancel take paths of their own; all
//!   other rules live on the general ones. Whatever is rare about a resting order is met apart from the matching loop.
//! - Events go to a [`Sink`], inlined where an event comes about and its kind is known. [`Events`] is one; the benchmark's
//!   keeps each whole record in a ring of 64 and reads it at once.
//! - [`Book::fetch_order`] and [`Book::fetch_neighbours`] let a caller that sees commands coming fetch their cache lines
//!   early; [`KeyedBook::apply_batch`] does so by itself.
//! - Prefetch is the one `unsafe` line of the crate (prefetch.rs). One codegen unit for this crate gives 3 to 8 %.
//!
//! What was tried on the way and what it gave is in the folder `docs`, with the figures and the commands that print them.
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
    OrderId, Owner, PROTECTION_PER_MILLE, PROTECTION_TICKS_MIN, Phase, Replace, SelfTrade, Side, Slot, Ticks,
    Tif, Time,
};
pub use event::{Event, Events, Reason, Sink, What};
pub use keyed::KeyedBook;
pub use query::{OpenOrder, PriceLevel, QueuePosition};
pub use snapshot::Error as SnapshotError;
