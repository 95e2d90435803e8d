//! The sign-in screen.

use crate::{
    model::{Model, feed::Link, feed::Wire},
    text,
    theme::Role,
    view::Pen,
};
use ratatui::layout::Rect;

const WIDTH: u16 = 50;
const HEIGHT: u16 = 11;

pub fn draw(model: &Model, pen: &mut Pen, area: Rect) {
    let form = &model.sign_in;
    let (width, height) = (WIDTH.min(area.width), HEIGHT.min(area.height));
    let frame = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    let inner = pen.boxed(frame, "fafnir  sign in");
    let mask = pen.theme.glyphs().mask.repeat(form.password.text().chars().count());
    let fields = [
        ("E-mail", form.email.text(), form.email.caret(), !form.on_password),
        ("Password", mask.as_str(), form.password.caret(), form.on_password),
    ];
    for (at, (name, value, caret, here)) in fields.into_iter().enumerate() {
        let y = inner.y + 1 + 2 * at as u16;
        if y >= inner.bottom() {
            return;
        }
        pen.role(inner.x + 1, y, 9, name, if here { Role::Title } else { Role::Dim });
        let x = inner.x + 11;
        let room = inner.right().saturating_sub(x + 1);
        // A long text shows the part around the caret.
        let skip = caret.saturating_sub(usize::from(room).saturating_sub(1));
        let shown: String = value.chars().skip(skip).collect();
        let field = pen.style(Role::Field);
        pen.repeat(x, y, room, " ", field);
        pen.text(x, y, room, text::prefix(&shown, usize::from(room)), field);
        if here && !form.busy {
            let style = pen.style(Role::Cursor);
            pen.paint(Rect::new(x + (caret - skip) as u16, y, 1, 1).intersection(inner), style);
        }
    }
    let (line, role) = match (&form.refused, form.busy, model.links.get(Wire::Grpc)) {
        (_, true, _) => ("signing in".to_owned(), Role::Warn),
        (Some(text), ..) => (text.clone(), Role::Bad),
        (None, false, Link::Down) => ("the gateway does not answer".to_owned(), Role::Bad),
        (None, false, _) => (String::new(), Role::Text),
    };
    let style = pen.style(role);
    for (at, piece) in
        super::ticket::wrap(&line, usize::from(inner.width.saturating_sub(2))).iter().take(3).enumerate()
    {
        let y = inner.y + 5 + at as u16;
        if y < inner.bottom() {
            pen.text(inner.x + 1, y, inner.width.saturating_sub(1), piece, style);
        }
    }
    let y = inner.bottom().saturating_sub(1);
    if inner.height > 6 {
        pen.role(
            inner.x + 1,
            y,
            inner.width.saturating_sub(1),
            "Enter signs in  Tab next  Esc quits",
            Role::Dim,
        );
    }
}
