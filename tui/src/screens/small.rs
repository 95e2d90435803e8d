//! A window too small to trade in: says so, and keeps the keys that only take risk away.

use crate::{
    model::{Model, feed::Freshness, holdings::is_open},
    theme::Role,
    view::{Pen, SIZE_MIN},
};
use ratatui::layout::Rect;

pub fn draw(model: &Model, pen: &mut Pen, area: Rect) {
    let open = model.holdings.orders.values().filter(|o| is_open(o)).count();
    let here = model.holdings.open_in(&model.symbol).count();
    let stale = matches!(model.feed.freshness(model.now_us, model.links.nats), Freshness::Stale(_));
    let lines = [
        (format!("too small: {} x {}", area.width, area.height), Role::Warn),
        (format!("needs {} x {}", SIZE_MIN.0, SIZE_MIN.1), Role::Text),
        (if stale { "STALE market data".to_owned() } else { String::new() }, Role::Banner),
        (format!("{open} open, {here} in {}", model.symbol), Role::Text),
        ("X cancel all in symbol".to_owned(), Role::Key),
        ("x cancel at cursor".to_owned(), Role::Key),
        ("q quit".to_owned(), Role::Key),
    ];
    let mut y = area.y;
    for (text, role) in lines.iter().filter(|(text, _)| !text.is_empty()) {
        let style = pen.style(*role);
        pen.words(area.x, y, area.width, text, style);
        y += 1;
    }
    if let Some(message) = &model.message {
        let style = pen.style(Role::Text);
        pen.words(area.x, y, area.width, &message.text, style);
    }
}
