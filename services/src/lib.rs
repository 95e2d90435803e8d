//! The table of services, and their composition.
//!
//! [`ALL`] is the table; [`compose::start`] runs any of its rows. The crates of the services are re-exported under their
//! short names; none of them knows another one.

pub mod broker;
pub mod compose;

pub use fafnir_auth as auth;
pub use fafnir_gateway as gateway;
pub use fafnir_order as order;
pub use fafnir_platform as platform;
pub use fafnir_portfolio as portfolio;
pub use fafnir_security as security;
pub use fafnir_simulator as simulator;
pub use fafnir_stock as stock;
pub use fafnir_trade_engine as trade_engine;
pub use fafnir_user as user;

pub use fafnir_platform::Service;

/// Every service that can be composed, the broker first.
pub static ALL: &[&Service] = &[
    &broker::SERVICE,
    &auth::SERVICE,
    &security::SERVICE,
    &user::SERVICE,
    &stock::SERVICE,
    &order::SERVICE,
    &portfolio::SERVICE,
    &trade_engine::SERVICE,
    &gateway::SERVICE,
];

/// The service with this name.
pub fn by_name(name: &str) -> Option<&'static Service> {
    ALL.iter().copied().find(|s| s.name == name)
}
