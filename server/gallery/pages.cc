#include "gallery/pages.h"

#include <algorithm>

#include "gallery/html.h"

namespace grenier::gallery {

namespace {

constexpr std::size_t months_listed_max = 5000;

std::string folder_of(const page_id& id) {
  switch (id.kind) {
    case page_kind::timeline: return timeline_folder(id.part);
    case page_kind::archive: return "m/";
    case page_kind::month: return month_folder(id.of, id.part);
    case page_kind::album: return album_folder(id.of, id.part);
    case page_kind::album_list: return album_list_folder(id.of, id.part);
    case page_kind::photo: return photo_folder(id.photo);
    case page_kind::about: return "about/";
    case page_kind::not_found: return "";
  }
  return "";
}

std::string file_of(const page_id& id, language l) {
  if (id.kind == page_kind::not_found) return l == language::french ? "404.fr.html" : "404.html";
  return folder_of(id) + std::string(file_name(l));
}

std::string_view album_name(std::string_view path) { return base_name(path); }

class writer {
 public:
  writer(shelf& s, const catalogue& c, const page_assets& a) : shelf_(s), root_(c), assets_(a) {}
  written_pages done;

  result<void> write(const page_id& id) {
    switch (id.kind) {
      case page_kind::timeline: return timeline(id);
      case page_kind::archive: return archive(id);
      case page_kind::month: return month(id);
      case page_kind::album: return album_page(id);
      case page_kind::album_list: return album_list(id);
      case page_kind::photo: return photo(id);
      case page_kind::about: return about(id);
      case page_kind::not_found: return not_found(id);
    }
    return {};
  }

 private:
  page open(const page_id& id, language l, section s, std::string_view title, bool waits = false) const {
    return begin(root_, assets_, l, folder_of(id), s, title, id.kind == page_kind::not_found, waits);
  }
  result<void> close(const page_id& id, page p, bool waits = false) {
    const language l = p.lang;
    done.objects.push_back({file_of(id, l), end(std::move(p)), "text/html; charset=utf-8", false, waits});
    return {};
  }
  result<void> gone(const page_id& id) {
    for (std::string& f : files_of(id)) done.remove.push_back(std::move(f));
    return {};
  }

  result<std::vector<item>> items_of(const std::vector<tree_entry>& entries, bool newest_first) {
    std::vector<item> items;
    for (const tree_entry& e : entries) {
      TRY(item i, item_from_entry(e, newest_first));
      items.push_back(std::move(i));
    }
    return items;
  }

  void notice(page& p) {
    if (root_.waiting == 0) return;
    p.raw("<p class=\"notice\" role=\"status\">").text(number_text(p.lang, root_.waiting) + " ").say_word(root_.waiting == 1 ? word::waiting_one : word::waiting_many).raw("</p>\n");
  }

  void empty(page& p) {
    p.raw("<div class=\"empty\"><svg viewBox=\"0 0 120 90\" width=\"160\" height=\"120\" aria-hidden=\"true\" focusable=\"false\"><g fill=\"none\" stroke=\"currentColor\" stroke-width=\"2.5\" "
          "stroke-linejoin=\"round\" stroke-linecap=\"round\"><path d=\"M8 40 60 8l52 32\"/><path d=\"M20 34v48h80V34\"/><rect x=\"40\" y=\"42\" width=\"40\" height=\"28\" rx=\"2\"/>"
          "<path d=\"m42 66 11-12 8 8 6-6 11 11\"/><circle cx=\"69\" cy=\"51\" r=\"2.5\"/></g></svg>\n<h1>")
        .say_word(word::empty_title).raw("</h1>\n");
    notice(p);
    p.raw("<p>").say_word(word::empty_text).raw("</p>\n");
    if (!root_.bucket.empty()) p.raw("<p>").say_word(word::empty_hint).raw(" <code>aws s3 cp photo.jpg s3://").text(root_.bucket).raw("/</code></p>\n");
    p.raw("</div>\n");
  }

  result<void> timeline(const page_id& id) {
    tree months(shelf_, root_.months, month_limits);
    TRY(auto leaf, months.leaf_at(id.part == 1 ? "" : id.at));
    if (!leaf && id.part == 1) {
      for (language l : languages) {
        page p = open(id, l, section::timeline, "");
        empty(p);
        TRY_VOID(close(id, std::move(p)));
      }
      return {};
    }
    if (!leaf || leaf->page != id.part) return gone(id);
    std::vector<month_entry> entries;
    for (const tree_entry& e : *leaf->entries) {
      TRY(month_entry m, month_from_entry(e));
      entries.push_back(std::move(m));
    }
    for (language l : languages) {
      page p = open(id, l, section::timeline, id.part == 1 ? std::string_view() : say(l, word::timeline));
      p.raw("<div class=\"head\"><h1>").text(title_of(root_)).raw("</h1>\n<p class=\"sub\">");
      if (id.part == 1) p.text(photos_text(l, root_.photos)).raw(" · ");
      p.raw("<a href=\"").raw(p.to_page("m/")).raw("\">").say_word(word::all_months).raw("</a></p></div>\n");
      notice(p);
      for (const month_entry& m : entries) {
        p.raw("<section class=\"month\" aria-labelledby=\"m-").raw(m.month).raw("\">\n<h2 id=\"m-").raw(m.month).raw("\"><a href=\"").raw(p.to_page(month_folder(m.month, 1))).raw("\">");
        p.text(month_text(l, m.month)).raw("</a> <span class=\"n\">").text(photos_text(l, m.count())).raw("</span></h2>\n");
        grid(p, m.preview, m.count() > m.preview.size() ? " cut" : "");
        if (m.count() > m.preview.size())
          p.raw("<p class=\"more\"><a href=\"").raw(p.to_page(month_folder(m.month, 1))).raw("\">").say_word(word::see_month).raw("<span class=\"hide\">, ").text(month_text(l, m.month)).raw("</span> <span aria-hidden=\"true\">→</span></a></p>\n");
        p.raw("</section>\n");
      }
      pager(p, leaf->previous ? std::optional(step_link{timeline_folder(leaf->previous->page), std::string(say(l, word::newer))}) : std::nullopt,
            leaf->next ? std::optional(step_link{timeline_folder(leaf->next->page), std::string(say(l, word::older))}) : std::nullopt);
      TRY_VOID(close(id, std::move(p)));
    }
    return {};
  }

  result<void> archive(const page_id& id) {
    tree months(shelf_, root_.months, month_limits);
    std::vector<std::string> names;
    std::string at;
    for (;;) {
      TRY(auto leaf, months.leaf_at(at));
      if (!leaf) break;
      for (const tree_entry& e : *leaf->entries) {
        TRY(month_entry m, month_from_entry(e));
        names.push_back(m.month);
      }
      if (!leaf->next || names.size() > months_listed_max) break;
      at = leaf->next->first;
    }
    for (language l : languages) {
      page p = open(id, l, section::timeline, say(l, word::all_months));
      p.raw("<div class=\"head\"><h1>").say_word(word::all_months).raw("</h1></div>\n");
      std::string year;
      for (const std::string& m : names) {
        const bool dated = m != "undated";
        const std::string y = dated ? m.substr(0, 4) : "-";
        if (y != year) {
          if (!year.empty()) p.raw("</ul>\n");
          if (dated) p.raw("<h2>").text(y).raw("</h2>\n");
          p.raw("<ul class=\"months\" role=\"list\">\n");
          year = y;
        }
        p.raw("<li><a href=\"").raw(p.to_page(month_folder(m, 1))).raw("\">");
        if (dated) p.text(month_name(l, std::stoi(m.substr(5)))).raw("<span class=\"hide\"> ").text(y).raw("</span>");
        else p.say_word(word::undated);
        p.raw("</a></li>\n");
      }
      if (!year.empty()) p.raw("</ul>\n");
      TRY_VOID(close(id, std::move(p)));
    }
    return {};
  }

  result<void> month(const page_id& id) {
    auto found = find_month(shelf_, root_, id.of);
    if (found.failed_with(errc::not_found)) return gone(id);
    if (!found) return fail(found.error());
    tree photos(shelf_, found->photos, photo_limits);
    TRY(auto leaf, photos.leaf_at(id.part == 1 ? "" : id.at));
    if (!leaf || leaf->page != id.part) return gone(id);
    TRY(std::vector<item> items, items_of(*leaf->entries, true));
    std::optional<std::string> newer, older;
    if (id.part == 1) {
      tree months(shelf_, root_.months, month_limits);
      for (bool before : {true, false}) {
        TRY(auto key, before ? months.before(month_key(id.of)) : months.after(month_key(id.of)));
        if (!key) continue;
        TRY(const tree_entry* e, months.find(*key));
        if (!e) continue;
        TRY(month_entry m, month_from_entry(*e));
        (before ? newer : older) = m.month;
      }
    }
    const bool single = !leaf->previous && !leaf->next;
    for (language l : languages) {
      page p = open(id, l, section::timeline, month_text(l, id.of));
      p.raw("<div class=\"head\"><p class=\"crumbs\"><a href=\"").raw(p.to_page("")).raw("\">").say_word(word::timeline).raw("</a></p>\n<h1>").text(month_text(l, id.of)).raw("</h1>\n");
      if (single) p.raw("<p class=\"sub\">").text(photos_text(l, found->count())).raw("</p>");
      p.raw("</div>\n");
      grid(p, items, "");
      pager(p, leaf->previous ? std::optional(step_link{month_folder(id.of, leaf->previous->page), std::string(say(l, word::newer))}) : std::nullopt,
            leaf->next ? std::optional(step_link{month_folder(id.of, leaf->next->page), std::string(say(l, word::older))}) : std::nullopt);
      if (newer || older) {
        p.raw("<nav class=\"beside\" aria-label=\"").say_word(word::month).raw("\">");
        if (newer) p.raw("<a href=\"").raw(p.to_page(month_folder(*newer, 1))).raw("\"><span aria-hidden=\"true\">←</span> ").text(month_text(l, *newer)).raw("</a>");
        if (older) p.raw("<a class=\"on\" href=\"").raw(p.to_page(month_folder(*older, 1))).raw("\">").text(month_text(l, *older)).raw(" <span aria-hidden=\"true\">→</span></a>");
        p.raw("</nav>\n");
      }
      TRY_VOID(close(id, std::move(p)));
    }
    return {};
  }

  void album_head(page& p, const std::string& path, std::optional<std::uint64_t> count) {
    p.raw("<div class=\"head\">");
    if (!path.empty()) {
      p.raw("<p class=\"crumbs\"><a href=\"").raw(p.to_page("a/")).raw("\">").say_word(word::albums).raw("</a>");
      for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
        const std::string above = path.substr(0, slash);
        p.raw(" <span aria-hidden=\"true\">/</span> <a href=\"").raw(p.to_page(album_folder(above, 1))).raw("\">").text(album_name(above)).raw("</a>");
      }
      p.raw("</p>\n");
    }
    p.raw("<h1>").text(path.empty() ? say(p.lang, word::albums) : album_name(path)).raw("</h1>\n");
    if (count) p.raw("<p class=\"sub\">").text(photos_text(p.lang, *count)).raw("</p>");
    p.raw("</div>\n");
  }

  void cards(page& p, const std::string& path, const std::vector<album_entry>& albums) {
    p.raw("<ul class=\"cards\" role=\"list\">\n");
    for (const album_entry& a : albums) {
      p.raw("<li><a href=\"").raw(p.to_page(album_folder(path.empty() ? a.name : path + "/" + a.name, 1))).raw("\"><span class=\"cover ").raw(a.cover ? colour_class(a.cover->thumbhash) : "").raw("\">");
      if (a.cover && a.cover->sizes != 0) {
        p.raw("<img ").raw(sources(p, *a.cover)).raw(" sizes=\"(min-width:700px) 300px,45vw\" width=\"3\" height=\"2\" loading=\"lazy\" decoding=\"async\" alt=\"\"");
        if (!a.cover->thumbhash.empty()) p.raw(" data-h=\"").raw(to_base64(a.cover->thumbhash)).raw("\"");
        p.raw(">");
      }
      p.raw("</span><span class=\"name\">").text(a.name).raw("</span> <span class=\"n\">").text(photos_text(p.lang, a.count)).raw("</span></a></li>\n");
    }
    p.raw("</ul>\n");
  }

  result<std::vector<album_entry>> entries_of(const tree::leaf_view& leaf) {
    std::vector<album_entry> albums;
    for (const tree_entry& e : *leaf.entries) {
      TRY(album_entry a, album_from_entry(e));
      albums.push_back(std::move(a));
    }
    return albums;
  }

  result<void> album_page(const page_id& id) {
    auto found = find_album(shelf_, root_, id.of);
    if (found.failed_with(errc::not_found)) {
      if (!id.of.empty() || id.part != 1) return gone(id);
      for (language l : languages) {
        page p = open(id, l, section::albums, say(l, word::albums));
        empty(p);
        TRY_VOID(close(id, std::move(p)));
      }
      return {};
    }
    if (!found) return fail(found.error());
    tree folders(shelf_, found->folders, folder_limits), photos(shelf_, found->photos, photo_limits);
    auto folder_leaf = id.part == 1 ? folders.leaf_at("") : result<std::optional<tree::leaf_view>>(std::nullopt);
    auto leaf = photos.leaf_at(id.part == 1 ? "" : id.at);
    if (!folder_leaf) return fail(folder_leaf.error());
    if (!leaf) return fail(leaf.error());
    if (id.part != 1 && (!*leaf || (*leaf)->page != id.part)) return gone(id);
    std::vector<album_entry> albums;
    std::vector<item> items;
    if (*folder_leaf) {
      TRY(albums, entries_of(**folder_leaf));
    }
    if (*leaf) {
      TRY(items, items_of(*(*leaf)->entries, false));
    }
    for (language l : languages) {
      page p = open(id, l, section::albums, id.of.empty() ? say(l, word::albums) : album_name(id.of));
      album_head(p, id.of, id.part == 1 ? std::optional(found->count) : std::nullopt);
      if (!albums.empty()) cards(p, id.of, albums);
      if (*folder_leaf && (*folder_leaf)->next) pager(p, {}, step_link{album_list_folder(id.of, (*folder_leaf)->next->page), std::string(say(l, word::more_albums))});
      if (!items.empty()) {
        if (!albums.empty()) p.raw("<h2 class=\"loose\">").say_word(id.of.empty() ? word::no_folder : word::photos_here).raw("</h2>\n");
        grid(p, items, "");
      }
      if (*leaf)
        pager(p, (*leaf)->previous ? std::optional(step_link{album_folder(id.of, (*leaf)->previous->page), std::string(say(l, word::older))}) : std::nullopt,
              (*leaf)->next ? std::optional(step_link{album_folder(id.of, (*leaf)->next->page), std::string(say(l, word::newer))}) : std::nullopt);
      TRY_VOID(close(id, std::move(p)));
    }
    return {};
  }

  result<void> album_list(const page_id& id) {
    auto found = find_album(shelf_, root_, id.of);
    if (found.failed_with(errc::not_found)) return gone(id);
    if (!found) return fail(found.error());
    tree folders(shelf_, found->folders, folder_limits);
    TRY(auto leaf, folders.leaf_at(id.at));
    if (!leaf || leaf->page != id.part || id.part == 1) return id.part == 1 ? result<void>() : gone(id);
    TRY(std::vector<album_entry> albums, entries_of(*leaf));
    for (language l : languages) {
      page p = open(id, l, section::albums, id.of.empty() ? say(l, word::albums) : album_name(id.of));
      album_head(p, id.of, {});
      cards(p, id.of, albums);
      pager(p, leaf->previous ? std::optional(step_link{album_list_folder(id.of, leaf->previous->page), std::string(say(l, word::back_albums))}) : std::nullopt,
            leaf->next ? std::optional(step_link{album_list_folder(id.of, leaf->next->page), std::string(say(l, word::more_albums))}) : std::nullopt);
      TRY_VOID(close(id, std::move(p)));
    }
    return {};
  }

  result<void> photo(const page_id& id) {
    TRY(const bytes* body, shelf_.get(record_key(id.photo)));
    if (!body) return {};
    auto r = record_from_json(*body, id.photo);
    if (!r) return {};  // overwritten by somebody: it is written again, and then the page
    auto in_month = find_month(shelf_, root_, month_of(*r));
    if (in_month.failed_with(errc::not_found)) return gone(id);
    if (!in_month) return fail(in_month.error());
    tree photos(shelf_, in_month->photos, photo_limits);
    TRY(const tree_entry* there, photos.find(timeline_key(item_of(*r))));
    if (!there) return gone(id);
    TRY(neighbours beside, neighbours_of(shelf_, root_, item_of(*r)));
    const auto taken = parse_time(r->taken);
    const bool waits = !missing_sizes(*r).empty();
    for (language l : languages) {
      const std::string title = taken ? day_text(l, *taken) : std::string(base_name(r->names.front().key));
      page p = open(id, l, section::other, title, waits);
      const std::string month = month_of(*r);
      p.raw("<div class=\"photo\">\n<figure>\n");
      const auto step = [&](const std::optional<photo_id>& to, const char* rel, word w, const char* sign) {
        if (to) p.raw("<a class=\"step ").raw(rel).raw("\" rel=\"").raw(rel).raw("\" href=\"").raw(p.to_page(photo_folder(*to))).raw("\" aria-label=\"").say_word(w).raw("\"><span aria-hidden=\"true\">").raw(sign).raw("</span></a>\n");
      };
      step(beside.newer, "prev", word::previous_photo, "‹");
      picture(p, *r);
      step(beside.older, "next", word::next_photo, "›");
      p.raw("</figure>\n<div class=\"about\">\n<p class=\"crumbs\"><a href=\"").raw(p.to_page(month_folder(month, 1))).raw("\">").text(month_text(l, month)).raw("</a></p>\n<h1>").text(title).raw("</h1>\n");
      facts(p, *r);
      std::string albums;
      for (const std::string& a : albums_of(*r)) {
        if (a.empty()) continue;
        if (!albums.empty()) albums += ", ";
        albums += "<a href=\"" + p.to_page(album_folder(a, 1)) + "\">" + escape(a) + "</a>";
      }
      if (!albums.empty()) p.raw("<p class=\"in\">").say_word(word::in_albums).raw(l == language::french ? " : " : ": ").raw(albums).raw("</p>\n");
      p.raw("<p><a class=\"button\" download href=\"").raw(p.to_file(download_key(*r))).raw("\">").say_word(word::download).raw(" <span class=\"n\">");
      if (const auto bytes = r->names.front().size_bytes; bytes > 0) p.text(size_text(l, bytes));
      p.raw("</span></a></p>\n</div>\n</div>\n");
      TRY_VOID(close(id, std::move(p), waits));
    }
    return {};
  }

  result<void> about(const page_id& id) {
    for (language l : languages) {
      page p = open(id, l, section::other, say(l, word::about));
      p.raw("<div class=\"prose\">\n<h1>").say_word(word::about_title).raw("</h1>\n<p>").say_word(word::about_text).raw("</p>\n<h2>").say_word(word::licences_title).raw("</h2>\n");
      for (const auto& [name, text] : assets_.licences)
        p.raw("<details><summary>").text(name).raw("</summary>\n<pre lang=\"en\" tabindex=\"0\">").raw(licence_text(text)).raw("</pre></details>\n");
      p.raw("</div>\n");
      TRY_VOID(close(id, std::move(p)));
    }
    return {};
  }

  // Lines stay lines.
  static std::string licence_text(const std::string& text) {
    std::string t;
    for (std::size_t from = 0; from < text.size();) {
      const std::size_t to = std::min(text.find('\n', from), text.size());
      t += escape(std::string_view(text).substr(from, to - from)) + "\n";
      from = to + 1;
    }
    return t;
  }

  result<void> not_found(const page_id& id) {
    for (language l : languages) {
      page p = open(id, l, section::other, say(l, word::not_found_title));
      p.raw("<div class=\"empty\"><h1>").say_word(word::not_found_title).raw("</h1>\n<p>").say_word(word::not_found_text).raw("</p>\n<p><a class=\"button\" href=\"").raw(p.to_page("")).raw("\">").say_word(word::to_start).raw("</a></p></div>\n");
      TRY_VOID(close(id, std::move(p)));
    }
    return {};
  }

  shelf& shelf_;
  const catalogue& root_;
  const page_assets& assets_;
};

}  // namespace

std::vector<std::string> files_of(const page_id& id) {
  std::vector<std::string> files;
  for (language l : languages) files.push_back(file_of(id, l));
  return files;
}

result<written_pages> write_pages(shelf& s, const catalogue& c, std::span<const page_id> pages, const page_assets& a) {
  writer w(s, c, a);
  bool missed = false;
  for (const page_id& id : pages) {
    auto r = w.write(id);
    // The others say what they miss as well, so that all is fetched at once.
    if (!r && r.error() == errc::unavailable) missed = true;
    else if (!r) return fail(r.error());
    if (missed) w.done.objects.clear();
  }
  if (missed) return fail(errc::unavailable, "the catalogue has to be read");
  return std::move(w.done);
}

}  // namespace grenier::gallery
