//! Writes fields for people, exactly as `tracing_subscriber` does. Each request's span has fields,
//! but hardly any of them is ever printed. So they are written without the machinery for colours,
//! unless there are colours.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{MakeVisitor, VisitFmt, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// Writes fields.
#[derive(Debug)]
pub struct Fields;

impl<'a> MakeVisitor<Writer<'a>> for Fields {
    type Visitor = Written<'a>;

    fn make_visitor(&self, writer: Writer<'a>) -> Written<'a> {
        Written {
            writer,
            is_empty: true,
            result: Ok(()),
        }
    }
}

/// Fields that are being written.
#[derive(Debug)]
pub struct Written<'a> {
    writer: Writer<'a>,
    is_empty: bool,
    result: fmt::Result,
}

impl Written<'_> {
    /// Whether the field needs no special treatment.
    fn is_plain(&self, field: &Field) -> bool {
        let name = field.name();
        let is_special = name == "message" || name.starts_with("log.") || name.starts_with("r#");
        !is_special && !self.writer.has_ansi_escapes()
    }

    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        if !self.is_empty {
            self.writer.write_str(" ")?;
        }
        self.is_empty = false;
        self.writer.write_str(field.name())?;
        self.writer.write_str("=")?;
        match value.as_str() {
            Some(value) => self.writer.write_str(value),
            None => self.writer.write_fmt(value),
        }
    }

    fn write_quoted(&mut self, field: &Field, value: &str) -> fmt::Result {
        self.write(field, format_args!("\""))?;
        self.writer.write_str(value)?;
        self.writer.write_str("\"")
    }

    fn by_default(&mut self, field: &Field, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        let mut visitor = DefaultVisitor::new(self.writer.by_ref(), self.is_empty);
        record(&mut visitor);
        self.result = visitor.finish();
        self.is_empty &= field.name().starts_with("log.");
    }
}

impl Visit for Written<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        let as_it_is = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if self.result.is_err() {
            return;
        }
        if !self.is_plain(field) {
            self.by_default(field, |visitor| visitor.record_str(field, value));
        } else if value.bytes().all(as_it_is) {
            self.result = self.write_quoted(field, value);
        } else {
            self.result = self.write(field, format_args!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        if self.result.is_ok() {
            self.by_default(field, |visitor| visitor.record_error(field, value));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.result.is_err() {
            return;
        }
        if self.is_plain(field) {
            self.result = self.write(field, format_args!("{value:?}"));
        } else {
            self.by_default(field, |visitor| visitor.record_debug(field, value));
        }
    }
}

impl VisitOutput<fmt::Result> for Written<'_> {
    fn finish(self) -> fmt::Result {
        self.result
    }
}

impl VisitFmt for Written<'_> {
    fn writer(&mut self) -> &mut dyn Write {
        &mut self.writer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::DefaultFields;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What is logged of a text, in a span's fields and in a line's own.
    macro_rules! logged {
        ($fields:expr, $is_coloured:expr, $text:expr) => {{
            let lines = Lines::default();
            let subscriber = tracing_subscriber::fmt()
                .without_time()
                .with_ansi($is_coloured)
                .fmt_fields($fields)
                .with_writer(lines.clone())
                .finish();
            let text: &str = $text;
            with_default(subscriber, || {
                let later = tracing::field::Empty;
                let span = tracing::error_span!("a", text, %text, number = 1, maybe = Some(2.5), later);
                span.record("later", text);
                let error: &(dyn std::error::Error + 'static) = &fmt::Error;
                span.in_scope(|| tracing::error!(text, other = ?text, error, r#type = true, "said: {text}"));
                tracing::error!(text);
                tracing::error!("{text}");
            });
            let bytes = lines.0.lock().unwrap().clone();
            String::from_utf8(bytes).unwrap()
        }};
    }

    proptest! {
        #[test]
        fn fields_look_as_they_do_by_default(text in "\\PC{0,20}|[ -~]{0,20}|[\\x00-\\x7f\\u{80}-\\u{9f}]{0,20}", is_coloured: bool) {
            let usual = logged!(DefaultFields::new(), is_coloured, &text);
            prop_assert!(usual.contains("number"));
            prop_assert_eq!(logged!(Fields, is_coloured, &text), usual);
        }
    }
}
