//! Pages of a list: which one a request asks for, and what its answer says about the next.

use std::str::FromStr;

use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use super::field::{Fault, Field, Parsed, number};
use super::problem::Problem;
use crate::cursor::{Cursor, Start};

/// The number of a page, from 1.
#[derive(Debug, ToSchema)]
#[schema(minimum = 1, maximum = 100_000)]
pub struct PageNumber(u32);

impl Field for PageNumber {
    fn parse(text: &str) -> Result<Self, Fault> {
        number(text, u32::MAX).map(Self)
    }
}

/// The most rows of a page: 1 to `MAX`, and `DEFAULT` where the request does not say.
#[derive(Debug)]
pub struct Limit<const MAX: u32, const DEFAULT: u32>(pub u32);

impl<const MAX: u32, const DEFAULT: u32> Field for Limit<MAX, DEFAULT> {
    fn parse(text: &str) -> Result<Self, Fault> {
        number(text, MAX).map(Self)
    }

    fn missing() -> Result<Self, Fault> {
        Ok(Self(DEFAULT))
    }
}

impl<const MAX: u32, const DEFAULT: u32> PartialSchema for Limit<MAX, DEFAULT> {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
            .minimum(Some(1))
            .maximum(Some(MAX))
            .default(Some(DEFAULT.into()))
            .into()
    }
}

impl<const MAX: u32, const DEFAULT: u32> ToSchema for Limit<MAX, DEFAULT> {}

/// The `nextCursor` of the page before.
#[derive(Debug)]
pub struct NextCursor<T>(pub T);

impl<T: FromStr> Field for NextCursor<T> {
    fn parse(text: &str) -> Result<Self, Fault> {
        text.parse()
            .map(Self)
            .map_err(|_| Fault::Borrowed("is not one that this list has given"))
    }
}

/// About a page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PageMeta {
    /// The page, from 1; null after a cursor.
    #[schema(required, minimum = 1, example = 1)]
    page: Option<u32>,
    /// The most rows of a page.
    #[schema(minimum = 1, example = 20)]
    limit: u32,
    /// Whether there is more.
    #[schema(example = true)]
    has_more: bool,
    /// What to pass as `cursor` for what follows; null at the end.
    #[schema(required, value_type = Option<String>, pattern = "^(7f|80)[0-9a-f]{46}$")]
    next_cursor: Option<Cursor>,
}

/// The deepest row that a page may end at: each is read from the first one on.
const DEEPEST: u64 = 100_000;

/// A request for a part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Where it begins.
    pub start: Start,
    /// The page that begins there, if it was asked for by number.
    page: Option<u32>,
    /// The most rows.
    limit: u32,
}

impl Window {
    /// The part that these parameters ask for.
    pub fn new<const MAX: u32, const DEFAULT: u32>(
        page: Option<Parsed<PageNumber>>,
        cursor: Option<Parsed<NextCursor<Cursor>>>,
        limit: Parsed<Limit<MAX, DEFAULT>>,
    ) -> Result<Self, Problem> {
        let Limit(limit) = limit.value();
        if let Some(cursor) = cursor {
            if page.is_some() {
                return Err(Problem::field("cursor", "cannot be combined with page"));
            }
            let start = Start::After(cursor.value().0);
            return Ok(Self {
                start,
                page: None,
                limit,
            });
        }
        let PageNumber(page) = page.map_or(PageNumber(1), Parsed::value);
        if u64::from(page) * u64::from(limit) > DEEPEST {
            let deeper = format!(
                "is what leads beyond the first {DEEPEST} rows (page times limit): \
                 the nextCursor of the page before"
            );
            return Err(Problem::field("cursor", deeper));
        }
        Ok(Self {
            start: Start::Skip(i64::from(page - 1) * i64::from(limit)),
            page: Some(page),
            limit,
        })
    }

    /// How many rows to read: one more than the page has, to see whether there is more.
    #[must_use]
    pub fn to_read(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Cuts the rows to the limit, and says where the list goes on.
    pub fn cut<T>(&self, rows: &mut Vec<T>, place: impl Fn(&T) -> Cursor) -> PageMeta {
        let limit = self.limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        PageMeta {
            page: self.page,
            limit: self.limit,
            has_more,
            next_cursor: rows.last().filter(|_| has_more).map(place),
        }
    }

    /// The same for rows that were looked for up to a place, and not to the end of the list: a page
    /// may have less of them than its limit, and is followed by another all the same.
    ///
    /// # Errors
    /// The page was asked for by its number, and begins behind that place.
    pub fn cut_at<T>(
        &self,
        reached: Cursor,
        rows: &mut Vec<T>,
        place: impl Fn(&T) -> Cursor,
    ) -> Result<PageMeta, Problem> {
        if rows.is_empty() && self.page.is_some_and(|page| page > 1) {
            let further = "is what leads further, where few of many rows match: \
                           the nextCursor of the page before";
            return Err(Problem::field("cursor", further));
        }
        let meta = self.cut(rows, place);
        Ok(PageMeta {
            has_more: true,
            next_cursor: meta.next_cursor.or(Some(reached)),
            ..meta
        })
    }
}
