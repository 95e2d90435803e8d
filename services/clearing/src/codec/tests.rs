//! What is written is read again, and whatever bytes come in, nothing panics.

use super::*;
use proptest::prelude::*;

fn any_symbol() -> impl Strategy<Value = Symbol> {
    "[A-Z][A-Z0-9.-]{0,9}".prop_map(|text| Symbol::parse(&text).unwrap())
}

fn any_uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn any_terms() -> impl Strategy<Value = Terms> {
    prop_oneof![
        Just(Terms::Market),
        any::<i64>().prop_map(|price_e4| Terms::Limit { price_e4 }),
        any::<i64>().prop_map(|stop_e4| Terms::Stop { stop_e4 }),
        any::<(i64, i64)>().prop_map(|(price_e4, stop_e4)| Terms::StopLimit { price_e4, stop_e4 }),
        any::<i64>().prop_map(|n| Terms::TrailingStop { trail: Trail::AmountE4(n) }),
        any::<i64>().prop_map(|n| Terms::TrailingStop { trail: Trail::PercentE4(n) }),
    ]
}

fn any_trail() -> impl Strategy<Value = Option<Trail>> {
    prop::option::of(prop_oneof![
        any::<i64>().prop_map(Trail::AmountE4),
        any::<i64>().prop_map(Trail::PercentE4)
    ])
}

fn any_new() -> impl Strategy<Value = Instruction> {
    let head = (any_uuid(), prop::option::of(any_uuid()), any_symbol(), one_of(Side::ALL), any_terms());
    let tail = (one_of(TimeInForce::ALL), any::<[i64; 4]>(), any::<bool>(), one_of(SelfTrade::ALL));
    (head, tail).prop_map(|((order, account, symbol, side, terms), (time, numbers, post_only, stp))| {
        let [quantity_e4, notional, display_e4, expires_us] = numbers;
        Instruction::New(Box::new(NewOrder {
            order,
            account,
            symbol,
            side,
            terms,
            time,
            quantity_e4,
            notional,
            display_e4,
            post_only,
            stp,
            expires_us,
        }))
    })
}

fn any_of_orders() -> impl Strategy<Value = Instruction> {
    let leg = any_new().prop_map(|new| match new {
        Instruction::New(new) => *new,
        other => panic!("{other:?}"),
    });
    let legs = prop::collection::vec(leg, 0..=3);
    prop_oneof![
        any_new(),
        (any_uuid(), one_of(GroupKind::ALL), legs).prop_map(|(group, kind, legs)| {
            Instruction::NewGroup(Box::new(NewGroup { group, kind, legs }))
        }),
        any_uuid().prop_map(|group| Instruction::CancelGroup { group }),
        (any_uuid(), any::<[i64; 3]>(), any_trail(), any::<u32>()).prop_map(
            |(order, [q, p, s], trail, version)| {
                Instruction::Replace(Replace {
                    order,
                    quantity_e4: q,
                    price_e4: p,
                    stop_e4: s,
                    trail,
                    version,
                })
            }
        ),
        any_uuid().prop_map(|order| Instruction::Cancel { order }),
        prop::option::of(any_symbol()).prop_map(|symbol| Instruction::CancelAll { symbol }),
        (prop::option::of(any_uuid()), any_symbol(), any_uuid())
            .prop_map(|(account, symbol, order)| Instruction::Flatten(Flatten { account, symbol, order })),
    ]
}

fn any_of_money() -> impl Strategy<Value = Instruction> {
    let currency = || one_of(&Currency::ALL);
    let kind = one_of(&Kind::ALL);
    prop_oneof![
        (any_uuid(), kind, currency(), any::<bool>()).prop_map(|(account, kind, currency, opening)| {
            Instruction::OpenAccount { account, kind, currency, opening }
        }),
        any_uuid().prop_map(|account| Instruction::CloseAccount { account }),
        Just(Instruction::CloseUser),
        (any_uuid(), currency(), any::<i64>()).prop_map(|(account, currency, amount)| Instruction::Deposit {
            account,
            currency,
            amount
        }),
        (any_uuid(), currency(), any::<i64>())
            .prop_map(|(account, currency, amount)| Instruction::Withdraw { account, currency, amount }),
        (any_uuid(), any_uuid(), currency(), any::<i64>())
            .prop_map(|(from, to, currency, amount)| Instruction::Transfer { from, to, currency, amount }),
        (any_uuid(), prop::option::of(currency()), prop::option::of(any_symbol()), any::<[i64; 3]>())
            .prop_map(|(account, currency, symbol, [amount, quantity_e4, cost_price_e4])| {
                Instruction::Endow(Endow { account, currency, amount, symbol, quantity_e4, cost_price_e4 })
            }),
    ]
}

fn any_of_reference() -> impl Strategy<Value = Instruction> {
    let state = || one_of(TradingState::ALL);
    let instrument =
        (any_symbol(), any::<u64>(), one_of(&Currency::ALL), any::<[i64; 3]>(), state(), 0..=9_999u32)
            .prop_map(|(symbol, version, currency, [tick_e4, lot_e4, close], state, band_bps)| {
                let previous_close_e4 = close;
                Instrument { symbol, version, currency, tick_e4, lot_e4, state, previous_close_e4, band_bps }
            });
    prop_oneof![
        instrument.prop_map(|i| Instruction::SetInstrument(Box::new(i))),
        (any_symbol(), state()).prop_map(|(symbol, state)| Instruction::SetState { symbol, state }),
        (any::<[i64; 6]>(), any::<[u32; 2]>()).prop_map(|([a, b, c, d, g, h], [e, f])| {
            Instruction::SetRules(Rules {
                opening: a,
                open_orders_max: e,
                deposit_max: b,
                deposits_per_day_max: c,
                account_max: d,
                recent_ids: f,
                volatility_pause_us: g,
                volatility_end_us: h,
            })
        }),
        any::<(u32, u32)>().prop_map(|(maker_bp, taker_bp)| Instruction::SetFees { maker_bp, taker_bp }),
        any::<i64>().prop_map(|usd_cad| Instruction::SetRate { usd_cad }),
        Just(Instruction::DayEnd),
        Just(Instruction::Expire),
        any_symbol().prop_map(|symbol| Instruction::Reopen { symbol }),
        one_of(&[Session::Always, Session::PreOpen, Session::Regular])
            .prop_map(|session| Instruction::SetSession { session }),
    ]
}

fn any_id() -> impl Strategy<Value = RequestId> {
    prop_oneof![
        any::<u128>().prop_map(|hash| RequestId { hash, payload: 0, looked_until: None, key: "".into() }),
        (any::<[u128; 2]>(), prop::option::of(0..u64::MAX), "\\PC{0,30}").prop_map(
            |([hash, payload], looked_until, key)| RequestId { hash, payload, looked_until, key: key.into() }
        ),
    ]
}

pub(crate) fn any_command() -> impl Strategy<Value = Command> {
    let instruction = prop_oneof![any_of_orders(), any_of_money(), any_of_reference()];
    let user = prop_oneof![Just(Uuid::nil()), any_uuid()];
    let trace = prop::option::of(any::<[u8; TRACE_BYTES]>());
    (user, any::<bool>(), prop::option::of(any_id()), trace, instruction)
        .prop_map(|(user, agent, id, trace, instruction)| Command { user, agent, id, trace, instruction })
}

proptest! {
    #[test]
    fn commands_come_back_as_they_were_written(command in any_command()) {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        prop_assert_eq!(Command::decode(&bytes), Ok(command.clone()));
        for length in 0..bytes.len() {
            prop_assert!(Command::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_a_command_or_refused(command in any_command(), at: prop::sample::Index, byte: u8, bytes: Vec<u8>) {
        for mut bytes in [bytes, { let mut b = Vec::new(); command.encode(&mut b); b }] {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(read) = Command::decode(&bytes) {
                let mut again = Vec::new();
                read.encode(&mut again);
                prop_assert_eq!(Command::decode(&again), Ok(read));
            }
        }
    }
}
