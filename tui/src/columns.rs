//! The columns of the tables below the ladder: which there are, and which of them a user wants, in which order.

/// A table of the lower part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Orders,
    Positions,
    Fills,
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub heading: &'static str,
    /// Columns of the window that it takes; 0: what the others leave.
    pub width: u16,
    /// Numbers stand right.
    pub right: bool,
    /// From which width of the window on it shows, unless it was asked for.
    pub from: u16,
}

const fn column(heading: &'static str, width: u16, right: bool, from: u16) -> Column {
    Column { heading, width, right, from }
}

const ORDERS: [Column; 12] = [
    column("ID", 4, false, 0),
    column("SIDE", 4, false, 0),
    column("SYMBOL", 8, false, 0),
    column("QTY", 8, true, 0),
    column("FILLED", 8, true, 0),
    column("PRICE", 9, true, 0),
    column("TYPE", 7, false, 100),
    column("TIF", 4, false, 90),
    column("STATE", 9, false, 0),
    column("AVG", 9, true, 110),
    column("TIME", 8, false, 80),
    // What the others cannot say: the trail, what shows, the end, why it ended.
    column("NOTE", 0, false, 0),
];
const POSITIONS: [Column; 9] = [
    column("SYMBOL", 8, false, 0),
    column("QTY", 9, true, 0),
    column("HELD", 7, true, 95),
    column("AVG COST", 10, true, 0),
    column("LAST", 9, true, 90),
    column("VALUE", 13, true, 80),
    column("UNREALISED", 12, true, 0),
    column("REALISED", 12, true, 0),
    column("CCY", 3, false, 100),
];
const FILLS: [Column; 8] = [
    column("TIME", 12, false, 0),
    column("SIDE", 4, false, 0),
    column("SYMBOL", 8, false, 0),
    column("QTY", 9, true, 0),
    column("PRICE", 10, true, 0),
    column("ROLE", 5, false, 75),
    column("ORDER", 5, false, 75),
    column("EXEC", 24, false, 110),
];

impl Table {
    pub const ALL: [Self; 3] = [Self::Orders, Self::Positions, Self::Fills];

    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Orders => &ORDERS,
            Self::Positions => &POSITIONS,
            Self::Fills => &FILLS,
        }
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Positions => "positions",
            Self::Fills => "fills",
        }
    }
}

impl Column {
    /// Its name in the configuration: `avg-cost`.
    pub fn name(&self) -> String {
        self.heading.to_ascii_lowercase().replace(' ', "-")
    }
}

/// Columns that a user wants, by their places in the table; those of a table that is not named are as they come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns([Option<Vec<usize>>; 3]);

impl Columns {
    /// Reads `TABLE=COLUMN,COLUMN`: the columns of a table in the order in which they are to show, as far as they have room.
    ///
    /// # Errors
    /// One sentence: no such table or column, a column twice, or none.
    pub fn parse<S: AsRef<str>>(rows: &[S]) -> Result<Self, String> {
        let mut wanted = Self::default();
        for row in rows {
            let row = row.as_ref();
            let (name, list) =
                row.split_once('=').ok_or_else(|| format!("{row:?} must be TABLE=COLUMN,COLUMN"))?;
            let table = Table::ALL.into_iter().find(|table| table.name() == name.trim());
            let table =
                table.ok_or_else(|| format!("{:?} must be orders, positions or fills", name.trim()))?;
            let mut places: Vec<usize> = Vec::new();
            for name in list.split(',').map(str::trim) {
                let found = table.columns().iter().position(|column| column.name() == name);
                let place = found.ok_or_else(|| {
                    let names: Vec<String> = table.columns().iter().map(Column::name).collect();
                    format!("{name:?} is no column of {}, which has {}", table.name(), names.join(", "))
                })?;
                if places.contains(&place) {
                    return Err(format!("{} has {name} twice", table.name()));
                }
                places.push(place);
            }
            wanted.0[table as usize] = Some(places);
        }
        Ok(wanted)
    }

    /// What was asked for of a table.
    pub fn of(&self, table: Table) -> Option<&[usize]> {
        self.0[table as usize].as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_wanted_by_their_names_and_in_their_order() {
        let wanted = Columns::parse(&["orders=state, id,price", "fills=exec"]).unwrap();
        assert_eq!(wanted.of(Table::Orders), Some(&[8, 0, 5][..]));
        assert_eq!((wanted.of(Table::Positions), wanted.of(Table::Fills)), (None, Some(&[7][..])));
        for (row, why) in [
            ("orders", "\"orders\" must be TABLE=COLUMN,COLUMN"),
            ("book=price", "\"book\" must be orders, positions or fills"),
            ("orders=id,id", "orders has id twice"),
        ] {
            assert_eq!(Columns::parse(&[row]), Err(why.to_owned()));
        }
        let why = Columns::parse(&["fills="]).unwrap_err();
        assert!(why.starts_with("\"\" is no column of fills, which has time, side"), "{why}");
    }
}
