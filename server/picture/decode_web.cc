// WebP and GIF: of a moving picture the first frame.
#include <gif_lib.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include "picture/decode.h"

namespace grenier::picture {

namespace {

// ------------------------------------------------------------------------------------------------- WebP

class webp_file {
 public:
  explicit webp_file(bytes_view file) {
    const WebPData data{reinterpret_cast<const std::uint8_t*>(file.data()), file.size()};
    demux_ = WebPDemux(&data);
    frame_ = demux_ && WebPDemuxGetFrame(demux_, 1, &iterator_) && iterator_.complete &&
             WebPGetFeatures(iterator_.fragment.bytes, iterator_.fragment.size, &features_) == VP8_STATUS_OK;
  }
  ~webp_file() {
    WebPDemuxReleaseIterator(&iterator_);
    if (demux_) WebPDemuxDelete(demux_);
  }
  bool opened() const { return frame_; }
  const WebPData& data() const { return iterator_.fragment; }
  extent size() const { return {static_cast<std::uint32_t>(features_.width), static_cast<std::uint32_t>(features_.height)}; }
  bool alpha() const { return features_.has_alpha; }
  bool lossless() const { return features_.format == 2; }
  std::string chunk(const char* name, std::size_t size_max) const {
    WebPChunkIterator c{};
    std::string out;
    if (WebPDemuxGetChunk(demux_, name, 1, &c) && c.chunk.size <= size_max)
      out.assign(reinterpret_cast<const char*>(c.chunk.bytes), c.chunk.size);
    WebPDemuxReleaseChunkIterator(&c);
    return out;
  }

 private:
  WebPDemuxer* demux_ = nullptr;
  WebPIterator iterator_{};
  WebPBitstreamFeatures features_{};
  bool frame_ = false;
};

result<plan> plan_webp(bytes_view file, std::uint64_t pixels_max) {
  webp_file w(file);
  if (!w.opened()) return undecodable("the WebP file is damaged or cut off");
  TRY_VOID(check_extent(w.size().width, w.size().height, pixels_max));
  const std::uint64_t pixels = std::uint64_t{w.size().width} * w.size().height, twice = std::uint64_t{4096} * 4096;
  return plan{file_format::webp, w.size().width, w.size().height, std::min(pixels, twice) * 4 + (w.lossless() || w.alpha() ? pixels * 4 : 0)};
}

result<decoded> decode_webp(bytes_view file, std::uint32_t long_edge) {
  webp_file w(file);
  if (!w.opened()) return undecodable("the WebP file is damaged or cut off");
  decoded d;
  d.full = w.size();
  d.told.format = file_format::webp;
  d.icc = w.chunk("ICCP", icc_size_max);
  std::string exif = w.chunk("EXIF", exif_size_max);
  read_exif(exif.starts_with("Exif") ? bytes_view(exif).substr(std::min<std::size_t>(6, exif.size())) : bytes_view(exif), d);
  // What is much too large is made smaller while it is decoded: its pixels are never all there.
  const extent out = fit(d.full, 2 * long_edge);
  WebPDecoderConfig c;
  if (!WebPInitDecoderConfig(&c)) return undecodable("another version of libwebp");
  c.options.use_scaling = out.width != d.full.width || out.height != d.full.height;
  c.options.scaled_width = static_cast<int>(out.width);
  c.options.scaled_height = static_cast<int>(out.height);
  std::vector<std::uint8_t> pixels(std::size_t{out.width} * out.height * 4);
  c.output.colorspace = w.alpha() ? MODE_rgbA : MODE_RGBA;
  c.output.is_external_memory = 1;
  c.output.u.RGBA = {pixels.data(), static_cast<int>(out.width * 4), pixels.size()};
  const auto status = WebPDecode(w.data().bytes, w.data().size, &c);
  WebPFreeDecBuffer(&c.output);
  if (status == VP8_STATUS_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status != VP8_STATUS_OK) return undecodable("the WebP file is damaged");
  scaler rows(out, fit(d.full, long_edge));
  for (std::uint32_t y = 0; y < out.height; ++y) rows.row(pixels.data() + std::size_t{y} * out.width * 4);
  d.pixels = rows.take();
  d.pixels.alpha = w.alpha();
  return d;
}

// ------------------------------------------------------------------------------------------------- GIF

class gif_file {
 public:
  explicit gif_file(bytes_view file) : rest_(file) {
    int failed = 0;
    gif_ = DGifOpen(this, read, &failed);
  }
  ~gif_file() {
    int ignored;
    if (gif_) DGifCloseFile(gif_, &ignored);
  }
  GifFileType* get() const { return gif_; }
  int transparent() const { return transparent_; }

  // Up to the first frame's pixels.
  bool find_frame() {
    GifRecordType type;
    while (gif_ && DGifGetRecordType(gif_, &type) == GIF_OK && type != TERMINATE_RECORD_TYPE) {
      if (type == IMAGE_DESC_RECORD_TYPE) return DGifGetImageDesc(gif_) == GIF_OK;
      int code;
      GifByteType* block = nullptr;
      if (type != EXTENSION_RECORD_TYPE || DGifGetExtension(gif_, &code, &block) != GIF_OK) return false;
      GraphicsControlBlock control;
      if (block && code == GRAPHICS_EXT_FUNC_CODE && DGifExtensionToGCB(block[0], block + 1, &control) == GIF_OK)
        transparent_ = control.TransparentColor;
      while (block)
        if (DGifGetExtensionNext(gif_, &block) != GIF_OK) return false;
    }
    return false;
  }

 private:
  static int read(GifFileType* g, GifByteType* to, int n) {
    auto* self = static_cast<gif_file*>(g->UserData);
    const std::size_t got = std::min(static_cast<std::size_t>(std::max(n, 0)), self->rest_.size());
    std::memcpy(to, self->rest_.data(), got);
    self->rest_.remove_prefix(got);
    return static_cast<int>(got);
  }
  bytes_view rest_;
  GifFileType* gif_ = nullptr;
  int transparent_ = -1;
};

result<plan> plan_gif(bytes_view file, std::uint64_t pixels_max) {
  gif_file g(file);
  if (!g.find_frame()) return undecodable("the GIF file is damaged or cut off");
  const auto& i = g.get()->Image;
  TRY_VOID(check_extent(static_cast<std::uint64_t>(std::max(i.Width, 0)), static_cast<std::uint64_t>(std::max(i.Height, 0)), pixels_max));
  return plan{file_format::gif, static_cast<std::uint32_t>(i.Width), static_cast<std::uint32_t>(i.Height), static_cast<std::uint64_t>(i.Width) * static_cast<std::uint64_t>(i.Height)};
}

result<decoded> decode_gif(bytes_view file, std::uint32_t long_edge) {
  gif_file g(file);
  if (!g.find_frame()) return undecodable("the GIF file is damaged or cut off");
  const auto& frame = g.get()->Image;
  const ColorMapObject* colours = frame.ColorMap ? frame.ColorMap : g.get()->SColorMap;
  if (!colours) return undecodable("the GIF file has no colours");
  decoded d;
  d.full = {static_cast<std::uint32_t>(frame.Width), static_cast<std::uint32_t>(frame.Height)};
  d.told.format = file_format::gif;
  std::vector<GifPixelType> indices(std::size_t{d.full.width} * d.full.height);
  constexpr std::uint32_t starts[] = {0, 4, 2, 1}, steps[] = {8, 8, 4, 2};
  for (std::size_t pass = 0; pass < (frame.Interlace ? 4 : 1); ++pass)
    for (std::uint32_t y = frame.Interlace ? starts[pass] : 0; y < d.full.height; y += frame.Interlace ? steps[pass] : 1)
      if (DGifGetLine(g.get(), indices.data() + std::size_t{y} * d.full.width, frame.Width) != GIF_OK) return undecodable("the GIF file is damaged or cut off");
  scaler rows(d.full, fit(d.full, long_edge));
  std::vector<std::uint8_t> line(std::size_t{d.full.width} * 4);
  for (std::uint32_t y = 0; y < d.full.height; ++y) {
    for (std::uint32_t x = 0; x < d.full.width; ++x) {
      const int index = indices[std::size_t{y} * d.full.width + x];
      const bool clear = index == g.transparent() || index >= colours->ColorCount;
      const GifColorType c = clear ? GifColorType{} : colours->Colors[index];
      const std::uint8_t rgba[] = {c.Red, c.Green, c.Blue, static_cast<std::uint8_t>(clear ? 0 : 255)};
      std::memcpy(line.data() + std::size_t{x} * 4, rgba, 4);
    }
    rows.row(line.data());
  }
  d.pixels = rows.take();
  d.pixels.alpha = true;
  return d;
}

}  // namespace

const decoder webp_decoder{plan_webp, decode_webp}, gif_decoder{plan_gif, decode_gif};

}  // namespace grenier::picture
