//! The story of user-service: profiles and watchlists.

use crate::stack as testing;
use crate::stack::Stack;
use fafnir_platform::{bus::USERS, users};
use fafnir_proto::{client::Caller, id::UserId, subject::USER_DELETED, v1};
use fafnir_services::{broker, security, stock, trade_engine, user};
use prost::Message as _;
use tonic::Code;
use uuid::Uuid;

async fn start() -> Stack {
    let stack = Stack::start(&[&broker::SERVICE]).await;
    stack.running.context.bus().await.unwrap().ensure_stream(USERS).await.unwrap();
    stack.restart(&[&broker::SERVICE, &security::SERVICE, &user::SERVICE], |_| {}).await
}

#[tokio::test]
async fn a_profile_belongs_to_its_user() {
    let stack = start().await;
    let clients = stack.running.context.clients.clone();
    let (ada, bob) = (UserId::new(Uuid::now_v7()), UserId::new(Uuid::now_v7()));
    let profile = |id: UserId, first: &str| v1::Profile {
        user_id: id.to_string(),
        first_name: first.into(),
        last_name: "Byron".into(),
        email: format!("{first}@example.com").to_lowercase(),
        ..Default::default()
    };
    let ask = |id: UserId| v1::GetProfileRequest { user_id: id.to_string() };
    let mut system = clients.user(&testing::system());
    let first = system.create_profile(profile(ada, "Ada")).await.unwrap().into_inner();
    let again = system.create_profile(profile(ada, "Eve")).await.unwrap().into_inner();
    assert_eq!(first, again, "idempotent by id");
    system.create_profile(profile(bob, "Bob")).await.unwrap();
    let bad = system.create_profile(profile(UserId::new(Uuid::now_v7()), "\u{1b}[2J")).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);

    let mut as_ada = clients.user(&Caller::User(ada));
    assert_eq!(as_ada.get_profile(ask(ada)).await.unwrap().into_inner().first_name, "Ada");
    let foreign = as_ada.get_profile(ask(bob)).await.unwrap_err();
    let unknown = as_ada.get_profile(ask(UserId::new(Uuid::new_v4()))).await.unwrap_err();
    assert_eq!((foreign.code(), foreign.message()), (unknown.code(), unknown.message()));
    assert_eq!(as_ada.update_profile(profile(bob, "Eve")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(as_ada.create_profile(profile(ada, "Ada")).await.unwrap_err().code(), Code::PermissionDenied);
    let renamed = as_ada.update_profile(profile(ada, "Augusta")).await.unwrap().into_inner();
    assert_eq!((renamed.first_name.as_str(), renamed.email.as_str()), ("Augusta", "ada@example.com"));
    assert!(renamed.updated_us > renamed.created_us);

    // Who may view users sees all of them, a page at a time.
    let list = v1::ListProfilesRequest { after_id: String::new(), limit: 1 };
    assert_eq!(as_ada.list_profiles(list.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let grant = v1::GrantRequest { user_id: ada.to_string(), role: "admin".into() };
    clients.security(&testing::system()).grant(grant).await.unwrap();
    let page = as_ada.list_profiles(list).await.unwrap().into_inner().profiles;
    assert_eq!(page.iter().map(|p| p.first_name.as_str()).collect::<Vec<_>>(), ["Augusta"]);
    let list = v1::ListProfilesRequest { after_id: page[0].user_id.clone(), limit: 0 };
    let page = as_ada.list_profiles(list).await.unwrap().into_inner().profiles;
    assert_eq!(page.iter().map(|p| p.first_name.as_str()).collect::<Vec<_>>(), ["Bob"]);

    // A deleted user's profile is blank for good.
    let db = stack.running.context.clone();
    let db = fafnir_platform::Context { service: "user-service", ..db };
    let db = db.database(user::store::MIGRATIONS).await.unwrap();
    let fact = v1::UserDeleted { user_id: bob.to_string(), time_us: 1 }.encode_to_vec();
    let facts = vec![(USER_DELETED.into(), fact.into())];
    users::apply(&db, facts, 1, user::events::erase).await.unwrap();
    assert_eq!(system.get_profile(ask(bob)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(system.create_profile(profile(bob, "Bob")).await.unwrap_err().code(), Code::NotFound);
    stack.stop().await;
}

#[tokio::test]
async fn a_watchlist_keeps_listed_symbols_until_its_user_leaves() {
    let services = [&broker::SERVICE, &trade_engine::SERVICE, &stock::SERVICE, &user::SERVICE];
    let stack = Stack::start(&[&broker::SERVICE]).await;
    stack.running.context.bus().await.unwrap().ensure_stream(USERS).await.unwrap();
    let stack = stack.restart(&services, |_| {}).await;
    let clients = stack.running.context.clients.clone();
    for symbol in ["AAPL", "SHOP.TO"] {
        let instrument = v1::Instrument {
            symbol: symbol.into(),
            name: symbol.into(),
            exchange: "TEST".into(),
            r#type: v1::InstrumentType::Equity.into(),
            currency: "USD".into(),
            tick_e4: 100,
            lot_e4: 10_000,
            ..Default::default()
        };
        clients.stock(&testing::system()).upsert_instrument(instrument).await.unwrap();
    }
    let ada = UserId::new(Uuid::now_v7());
    let mut mine = clients.user(&Caller::User(ada));
    let symbol = |symbol: &str| v1::WatchlistRequest { symbol: symbol.into(), ..Default::default() };
    for text in ["aapl", "SHOP.TO", "AAPL"] {
        mine.add_to_watchlist(symbol(text)).await.unwrap();
        stack.time.advance(1);
    }
    assert_eq!(mine.add_to_watchlist(symbol("NOPE")).await.unwrap_err().code(), Code::NotFound);
    let watched = async || {
        let request = v1::GetProfileRequest { user_id: ada.to_string() };
        let items = clients.user(&testing::system()).watchlist(request).await.unwrap().into_inner().items;
        items.into_iter().map(|i| i.symbol).collect::<Vec<_>>()
    };
    assert_eq!(watched().await, ["SHOP.TO", "AAPL"]);
    for _ in 0..2 {
        mine.remove_from_watchlist(symbol("AAPL")).await.unwrap();
    }
    assert_eq!(watched().await, ["SHOP.TO"]);
    let ctx = fafnir_platform::Context { service: "user-service", ..stack.running.context.clone() };
    let db = ctx.database(user::store::MIGRATIONS).await.unwrap();
    let fact = v1::UserDeleted { user_id: ada.to_string(), time_us: 1 }.encode_to_vec();
    users::apply(&db, vec![(USER_DELETED.into(), fact.into())], 1, user::events::erase).await.unwrap();
    assert!(watched().await.is_empty());
    stack.stop().await;
}
