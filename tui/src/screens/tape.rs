//! Time and sales, newest on top, own fills marked.

use crate::{model::Model, text, theme::Role, view::Pen};
use fafnir_proto::v1::Side;
use ratatui::layout::Rect;

pub fn draw(model: &Model, pen: &mut Pen, area: Rect) {
    if model.tape.is_empty() {
        pen.role(area.x + 1, area.y, area.width.saturating_sub(1), "no trades yet", Role::Dim);
        return;
    }
    let tick = model.tick_e4(&model.symbol);
    let wide = area.width >= 36;
    let glyphs = pen.theme.glyphs();
    let gap = model.tape.gap();
    let mut y = area.y;
    for trade in model.tape.shown() {
        if y >= area.bottom() {
            break;
        }
        if gap.is_some_and(|(after, _)| trade.trade_no <= after) && y > area.y {
            let (after, before) = gap.unwrap_or((0, 0));
            if model.tape.shown().any(|t| t.trade_no >= before) && trade.trade_no == after {
                pen.role(
                    area.x + 1,
                    y,
                    area.width,
                    &format!("{} missing, asked for", before - after - 1),
                    Role::Warn,
                );
                y += 1;
                if y >= area.bottom() {
                    break;
                }
            }
        }
        let shown_us = model.zone.shown_us(trade.time_us);
        let time = if wide { text::clock_ms(shown_us) } else { text::clock(shown_us) };
        let (letter, role) = match trade.aggressor() {
            Side::Buy => ("B", Role::Bid),
            Side::Sell => ("S", Role::Ask),
            Side::Unspecified => ("-", Role::Text),
        };
        let x = pen.role(area.x, y, area.width, &time, Role::Dim) + 1;
        let x = pen.role(x, y, 1, letter, role) + 1;
        let style = pen.style(role);
        let room = area.right().saturating_sub(x);
        let price_width = 9.min(room);
        pen.right(x, y, price_width, &text::price(trade.price_e4, tick), style);
        let x = x + price_width;
        let quantity_width = 7.min(area.right().saturating_sub(x));
        let quantity = text::quantity(trade.quantity_e4, usize::from(quantity_width.saturating_sub(1)));
        let plain = pen.style(Role::Text);
        pen.right(x, y, quantity_width, &quantity, plain);
        let is_mine = model.holdings.fills.iter().any(|f| f.exec_id == trade.exec_id);
        let x = x + quantity_width;
        if is_mine && area.right() > x + 3 {
            pen.role(x, y, area.right() - x, &format!(" {}me", glyphs.mine), Role::Own);
        }
        y += 1;
    }
}
