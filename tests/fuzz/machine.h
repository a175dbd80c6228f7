// machine.h: one simulated machine for a program that is given hostile bytes: virtual time, nothing outside, gone at the end.
#pragma once

#include "sim/world.h"

namespace grenier::fuzz {

class alone {
 public:
  alone() : w_(1) { w_.add("home"); }
  ~alone() {
    app_ = nullptr;
    m().crash(true);
  }
  alone(const alone&) = delete;
  sim::world& w() { return w_; }
  sim::machine& m() { return w_.at(0); }

  template <class App>
  App& start() {
    m().start([this](sim::machine& machine) -> std::shared_ptr<void> {
      auto a = std::make_shared<App>(machine);
      app_ = a.get();
      return a;
    });
    return *static_cast<App*>(app_);
  }
  // Whatever it was told, it has an end.
  template <class T>
  T finish(task<T> t) {
    auto r = w_.await(m(), std::move(t));
    ASSERT(r);
    return std::move(*r);
  }

 private:
  sim::world w_;
  void* app_ = nullptr;
};

}  // namespace grenier::fuzz
