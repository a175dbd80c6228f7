// What this replica notes with each value that it takes: how many objects a bucket has, and which version's references are over.
#include "store/work.h"

namespace grenier::store {

using status = model::upload_row::status;

namespace {

const bytes count_prefix = "store/count/";

std::optional<model::object_row> object_in(bool present, bytes_view row) {
  if (!present) return std::nullopt;
  auto r = model::decode_object(row);
  if (!r || r->delete_marker) return std::nullopt;
  return std::move(*r);
}

std::optional<model::upload_row> upload_in(bool present, bytes_view row) {
  if (!present) return std::nullopt;
  auto r = model::decode_upload(row);
  if (!r) return std::nullopt;
  return std::move(*r);
}

bytes encode_count(const counters& c, std::uint64_t changes) {
  pb::Count m;
  m.set_format(1);
  m.set_objects(c.objects);
  m.set_bytes(c.bytes);
  m.set_uploads(c.uploads);
  m.set_changes(changes);
  return m.SerializeAsString();
}

}  // namespace

void service::impl::install_hooks() {
  below->on_apply(table_id::object, [this](const table::change& c, kv::batch& b) { object_changed(c, b); });
  below->on_apply(table_id::part, [this](const table::change& c, kv::batch& b) { part_changed(c, b); });
  below->on_apply(table_id::upload, [this](const table::change& c, kv::batch& b) { upload_changed(c, b); });
  below->answer_query(count_question, [this](layout::partition p, bytes argument) { return answer_count(p, std::move(argument)); });
}

void service::impl::object_changed(const table::change& c, kv::batch& b) {
  auto before = object_in(c.before_present, c.before);
  auto after = object_in(c.after_present, c.after);
  auto size = [](const auto& o) { return o ? static_cast<std::int64_t>(o->meta.size) : 0; };
  count_change(c, b, after.has_value() - before.has_value(), size(after) - size(before), 0);
  if (!before || (before->blocks.empty() && before->manifests.empty())) return;
  // Tags may change while the version stays; then its blocks do too.
  if (after && after->meta.version == before->meta.version) return;
  queue_work(b, {work::kind_type::replaced, c.key, bytes(c.before), c.before_written}, skips("withdrawn_at_once") ? 0ns : opts.withdraw_delay);
}

void service::impl::part_changed(const table::change& c, kv::batch& b) {
  if (!c.before_present) return;
  auto before = model::decode_part(c.before);
  if (!before || before->blocks.empty()) return;
  if (c.after_present)
    if (auto after = model::decode_part(c.after); after && after->version == before->version) return;
  queue_work(b, {work::kind_type::replaced, c.key, bytes(c.before), c.before_written}, opts.withdraw_delay);
}

void service::impl::upload_changed(const table::change& c, kv::batch& b) {
  auto before = upload_in(c.before_present, c.before);
  auto after = upload_in(c.after_present, c.after);
  auto open = [](const auto& u) { return u && u->state == status::open; };
  count_change(c, b, 0, 0, open(after) - open(before));
  if (!after || after->state == status::open) return;
  if (before && before->state == after->state && before->became == after->became) return;
  queue_work(b, {work::kind_type::upload, c.key, {}, {}}, opts.withdraw_delay);
}

// ------------------------------------------------------------------------------------------------- counters

void service::impl::count_change(const table::change& c, kv::batch& b, std::int64_t objects, std::int64_t size, std::int64_t uploads) {
  if (skips("uncounted_removals") && objects < 0) return;
  count_state& n = counts[c.key.partition_key];
  n.objects += objects;
  n.bytes += size;
  n.uploads += uploads;
  ++n.changes;
  if (objects == 0 && size == 0 && uploads == 0) return;
  b.if_lost([this, bucket = c.key.partition_key, objects, size, uploads] {
    count_state& was = counts[bucket];
    was.objects -= objects;
    was.bytes -= size;
    was.uploads -= uploads;
  });
  // Before the counts on disk were read, n is what came on top of them: it is written with the next change after that.
  if (counts_loaded) b.put(kv::family::meta, count_prefix + c.key.partition_key, encode_count({n.objects, n.bytes, n.uploads}, n.changes));
}

task<result<void>> service::impl::load_counters() {
  kv::scan_options range{count_prefix, end_of(count_prefix)};
  for (;;) {
    CO_TRY(auto entries, co_await kv.scan(kv::family::meta, range));
    if (entries.empty()) break;
    for (const auto& e : entries) {
      pb::Count m;
      if (!m.ParseFromString(e.value) || m.format() != 1) continue;
      count_state& n = counts[e.key.substr(count_prefix.size())];
      n.objects += m.objects();
      n.bytes += m.bytes();
      n.uploads += m.uploads();
      n.changes += m.changes();
    }
    range.from = entries.back().key + '\0';
  }
  counts_loaded = true;
  co_return result<void>();
}

task<result<bytes>> service::impl::answer_count(layout::partition, bytes argument) {
  auto at = counts.find(argument);
  count_state n = at == counts.end() ? count_state{} : at->second;
  co_return encode_count({n.objects, n.bytes, n.uploads}, n.changes);
}

task<result<counters>> service::count(call c, std::string bucket_name) {
  CO_TRY(bucket b, co_await impl_->admit(c, std::move(bucket_name), model::action::head_bucket));
  CO_TRY(auto answers, co_await impl_->below->query(impl_->partition_of(b), count_question, b.id.str(), impl_->reading(c.deadline)));
  std::vector<pb::Count> counted;
  for (const auto& [node, answer] : answers) {
    pb::Count m;
    if (m.ParseFromString(answer) && m.format() == 1) counted.push_back(std::move(m));
  }
  if (counted.empty()) co_return fail(errc::unavailable, "no replica told what it counts");
  const pb::Count* best = &counted[0];
  for (const auto& m : counted)
    if (m.changes() > best->changes()) best = &m;
  for (std::size_t i = 0; i < counted.size(); ++i)
    for (std::size_t j = i + 1; j < counted.size(); ++j)
      if (counted[i].objects() == counted[j].objects() && counted[i].bytes() == counted[j].bytes() &&
          counted[i].uploads() == counted[j].uploads())
        best = &counted[i];
  co_return counters{best->objects(), best->bytes(), best->uploads()};
}

}  // namespace grenier::store
