-- Whether the provider may have accepted the message in the attempt that failed last. Null: none failed, or before this column.
alter table messages add column error_ambiguous boolean;
