//! One trade: what both sides post, as one ledger transaction.

use super::{
    AccountKey, AssetKey, Balance, Currency, FEES, FX, Fault, ROUNDING,
    hold::{Fill, Hold, Legs, Side},
    ledger::{Adjustment, Balanced, Cause, ExecId, Postings, Role, Transaction},
};
use fafnir_rules::money::notional_micros;

/// A trade of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trade {
    pub symbol: AssetKey,
    pub seq: u64,
    pub price_e4: i64,
    pub quantity_e4: i64,
}

/// One side of a trade: its hold, where it is posted, and what is open at the engine afterwards.
#[derive(Debug, Clone)]
pub struct Party {
    pub hold: Hold,
    pub account: AccountKey,
    pub currency: Currency,
    /// Asset that the hold is for and the currency of its listing.
    pub symbol: AssetKey,
    pub listing: AssetKey,
    /// The recorded rate, where the account is in another currency.
    pub rate: Option<i64>,
    pub maker: bool,
    pub open_e4: i64,
    /// The balance of the shares before the trade.
    pub shares: Balance,
}

/// What a trade does: the ledger transaction and both holds afterwards.
#[derive(Debug, Clone)]
pub struct Settlement {
    pub transaction: Transaction,
    pub buyer: Hold,
    pub seller: Hold,
}

/// Settles a trade between two parties. Refuses what cannot be; nothing is changed then.
pub fn settle(trade: Trade, mut buyer: Party, mut seller: Party) -> Result<Settlement, Fault> {
    let (price_e4, quantity_e4) = (trade.price_e4, trade.quantity_e4);
    let notional = notional_micros(price_e4, quantity_e4)
        .filter(|n| *n >= 0 && quantity_e4 > 0)
        .ok_or(Fault::Inexact(quantity_e4, price_e4))?;
    for (party, side) in [(&buyer, Side::Buy), (&seller, Side::Sell)] {
        if party.hold.side != side {
            return Err(Fault::WrongSide(party.hold.order));
        }
        if party.symbol != trade.symbol {
            return Err(Fault::WrongSymbol {
                order: party.hold.order,
                held: party.symbol,
                traded: trade.symbol,
            });
        }
    }
    if buyer.listing != seller.listing {
        return Err(Fault::ListingDiffers);
    }
    let needs = |hold: &Hold| hold.needed().ok_or(Fault::Overflow);
    let (bought_before, sold_before) = (needs(&buyer.hold)?, needs(&seller.hold)?);
    let of = |party: &Party| Fill { quantity_e4, notional, maker: party.maker, open_e4: party.open_e4 };
    let (to_buy, to_sell) = (of(&buyer), of(&seller));
    let paid = buyer.hold.fill(to_buy)?;
    let got = seller.hold.fill(to_sell)?;

    let postings = postings(trade, notional, (&buyer, paid), (&seller, got))?;
    let cost = seller.shares.cost_of(quantity_e4);
    let mut transaction = Transaction::new(Cause::Trade, postings);
    transaction.exec = Some(ExecId { symbol: trade.symbol, seq: trade.seq, price_e4 });
    transaction.payer_ref = Some(buyer.hold.order);
    transaction.payee_ref = Some(seller.hold.order);
    transaction.payer_rate = buyer.rate;
    transaction.payee_rate = seller.rate;
    let nothing = Adjustment { account: 0, asset: 0, held: 0, cost: 0, realized: 0 };
    transaction.adjustments = vec![
        Adjustment {
            account: buyer.account,
            asset: buyer.currency.asset(),
            held: needs(&buyer.hold)? - bought_before,
            ..nothing
        },
        Adjustment {
            account: buyer.account,
            asset: trade.symbol,
            cost: paid.principal.checked_add(paid.fee).ok_or(Fault::Overflow)?,
            ..nothing
        },
        Adjustment {
            account: seller.account,
            asset: trade.symbol,
            held: needs(&seller.hold)? - sold_before,
            cost: -cost,
            realized: (got.principal - got.fee).checked_sub(cost).ok_or(Fault::Overflow)?,
        },
    ];
    Ok(Settlement { transaction, buyer: buyer.hold, seller: seller.hold })
}

/// What both sides post: money one way, shares the other, fees and exchanges to the house.
fn postings(
    trade: Trade,
    notional: i64,
    (buyer, paid): (&Party, Legs),
    (seller, got): (&Party, Legs),
) -> Result<Balanced, Fault> {
    let mut lines = Postings::default();
    let listing = buyer.listing;
    let (paying, paid_in) = (buyer.currency.asset(), seller.currency.asset());
    lines.add(buyer.account, paying, -paid.principal, Role::Principal)?;
    if buyer.hold.terms.fx.foreign {
        lines.add(FX, paying, paid.exchanged, Role::Conversion)?;
        lines.add(ROUNDING, paying, paid.principal - paid.exchanged, Role::Conversion)?;
        lines.add(FX, listing, -notional, Role::Conversion)?;
    }
    lines.add(seller.account, paid_in, got.principal, Role::Principal)?;
    if seller.hold.terms.fx.foreign {
        lines.add(FX, listing, notional, Role::Conversion)?;
        lines.add(FX, paid_in, -got.exchanged, Role::Conversion)?;
        lines.add(ROUNDING, paid_in, got.exchanged - got.principal, Role::Conversion)?;
    }
    lines.transfer(seller.account, buyer.account, trade.symbol, trade.quantity_e4, Role::Principal)?;
    lines.transfer(buyer.account, FEES, paying, paid.fee, Role::Fee)?;
    lines.transfer(seller.account, FEES, paid_in, got.fee, Role::Fee)?;
    lines.balanced()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Fx, hold::Terms};
    use uuid::Uuid;

    const SYMBOL: AssetKey = 9;

    fn party(account: AccountKey, side: Side, currency: Currency, bp: u32, maker: bool) -> Party {
        let fx = Fx::between(Currency::Usd, currency, 1_370_001);
        let terms = Terms { fx, maker_bp: bp, taker_bp: bp };
        Party {
            hold: Hold::new(Uuid::from_u128(account as u128), side, 30_000, 1_000_100, terms),
            account,
            currency,
            symbol: SYMBOL,
            listing: Currency::Usd.asset(),
            rate: None,
            maker,
            open_e4: 20_000,
            shares: Balance { posted: 30_000, held: 30_000, cost: 100, ..Balance::default() },
        }
    }

    #[test]
    fn every_mix_of_currencies_and_fees_balances() {
        for buyer in Currency::ALL {
            for seller in Currency::ALL {
                for bp in [0, 7] {
                    let trade = Trade { symbol: SYMBOL, seq: 4, price_e4: 999_900, quantity_e4: 10_000 };
                    let settled = settle(
                        trade,
                        party(10, Side::Buy, buyer, bp, false),
                        party(11, Side::Sell, seller, bp, true),
                    )
                    .unwrap();
                    let lines = settled.transaction.postings.as_slice().to_vec();
                    let total = |account, asset| -> i64 {
                        lines
                            .iter()
                            .filter(|p| p.account == account && p.asset == asset)
                            .map(|p| p.amount)
                            .sum()
                    };
                    assert_eq!((total(10, SYMBOL), total(11, SYMBOL)), (10_000, -10_000));
                    // 99.99 USD, or 136.98639999 CAD: a debit rounded up, a credit down.
                    let (pays, gets) = (total(10, buyer.asset()), total(11, seller.asset()));
                    let fee = |amount: i64| (amount * i64::from(bp) + 9_999) / 10_000;
                    match buyer {
                        Currency::Usd => assert_eq!(pays, -99_990_000 - fee(99_990_000)),
                        Currency::Cad => assert_eq!(pays, -136_986_400 - fee(136_986_400)),
                    }
                    match seller {
                        Currency::Usd => assert_eq!(gets, 99_990_000 - fee(99_990_000)),
                        Currency::Cad => assert_eq!(gets, 136_986_399 - fee(136_986_399)),
                    }
                }
            }
        }
    }

    #[test]
    fn a_sale_realizes_proceeds_less_its_part_of_the_cost() {
        let trade = Trade { symbol: SYMBOL, seq: 4, price_e4: 1_000_000, quantity_e4: 10_000 };
        let settled = settle(
            trade,
            party(10, Side::Buy, Currency::Usd, 0, false),
            party(11, Side::Sell, Currency::Usd, 0, true),
        )
        .unwrap();
        let sold = settled.transaction.adjustments[2];
        assert_eq!((sold.held, sold.cost, sold.realized), (-10_000, -34, 100_000_000 - 34));
    }

    #[test]
    fn a_trade_against_the_wrong_side_or_symbol_is_refused() {
        let trade = Trade { symbol: SYMBOL, seq: 4, price_e4: 1_000_000, quantity_e4: 10_000 };
        let buyer = party(10, Side::Buy, Currency::Usd, 0, false);
        let seller = party(11, Side::Sell, Currency::Usd, 0, true);
        assert!(matches!(settle(trade, seller.clone(), buyer.clone()), Err(Fault::WrongSide(_))));
        let other = Trade { symbol: 8, ..trade };
        assert!(matches!(settle(other, buyer, seller), Err(Fault::WrongSymbol { .. })));
    }
}
