package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/enrich"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// settle is how long settings must stay unchanged before they are read: editors
// and installers write in several steps. Judgement.
const settle = 300 * time.Millisecond

// maxWatched bounds the folders that are watched. SigmaHQ's rules have 150.
const maxWatched = 1024

// errStopping says that the agent is about to end.
var errStopping = errors.New("the agent is stopping")

// Reload reads settings and rules again, all or nothing: on any problem what is
// in force stays, and status tells. It answers what changed.
func (a *Agent) Reload() ([]config.Change, error) {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	old := a.cfg.Load()
	cfg, err := loadSettings(a.o.ConfigFile)
	if err == nil && cfg.StateDir != old.StateDir {
		err = errors.New("state_dir cannot change while the agent runs: restart it")
	}
	var load loaded
	if err == nil {
		load, err = loadRules(cfg)
	}
	if err != nil {
		a.problems.Store(&settingsState{a.problems.Load().loaded, lines(err)})
		a.log.Error("settings refused, the old ones stay", zap.Error(err))
		return nil, err
	}
	changes := config.Diff(old, cfg)
	if !a.writeAhead() {
		return nil, errStopping
	}
	if !a.do(func() {
		a.rules, a.refused = load, nil
		a.stage.Reload(enrich.Options{Config: cfg})
		a.judge.Kept(a.out.kept.Load())
		if err := a.judge.Swap(load.program); err != nil {
			a.log.Warn("write what was counted before the rules change", zap.Error(err))
		}
		a.keep(cfg, nil)
		a.figures()
	}) {
		return nil, errStopping
	}
	a.warnOpenRules()
	if a.files != nil {
		a.files.SetProtected(a.places(cfg))
	}
	for _, c := range changes {
		a.log.Info("setting changed", zap.String("setting", c.Path), zap.String("from", c.Old), zap.String("to", c.New))
	}
	return changes, nil
}

// writeAhead writes down what was counted, and waits for the disk beside the
// pipeline: the judge's Swap, for which the pipeline stands still, has little left
// to write. False: the pipeline has ended.
func (a *Agent) writeAhead() bool {
	var written <-chan struct{}
	if !a.do(func() {
		a.judge.Kept(a.out.kept.Load())
		written = a.judge.Ahead()
	}) {
		return false
	}
	<-written
	return true
}

// watchSettings reloads when the settings file or a rule file changes, or on
// SIGHUP, until ctx is done. Directories are watched, not files: editors and
// installers replace files.
func (a *Agent) watchSettings(ctx context.Context) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		a.log.Warn("settings are not watched for changes; SIGHUP still reloads them", zap.Error(err))
	} else {
		defer w.Close()
		a.watchDirs(w)
	}
	var events chan fsnotify.Event
	var errs chan error
	if w != nil {
		events, errs = w.Events, w.Errors
	}
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if a.concerns(e.Name) {
				due = time.After(settle)
			}
		case err := <-errs:
			a.log.Warn("watch settings", zap.Error(err))
			due = time.After(settle) // events may have been missed
		case <-a.hups:
			due = time.After(0)
		case <-due:
			due = nil
			if w != nil {
				a.watchDirs(w) // new folders, before they are read
			}
			if _, err := a.Reload(); err == nil && w != nil {
				a.watchDirs(w) // those that the new settings name
			}
		}
	}
}

// watchDirs watches the directories of the settings file and of the rules, with
// the folders below; adding one twice is harmless.
func (a *Agent) watchDirs(w *fsnotify.Watcher) {
	var dirs []string
	if a.o.ConfigFile != "" {
		dirs = append(dirs, filepath.Dir(a.o.ConfigFile))
	}
	for _, p := range a.cfg.Load().Rules.Paths {
		if st, err := os.Stat(p); err != nil || !st.IsDir() {
			dirs = append(dirs, filepath.Dir(p))
			continue
		}
		filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && len(dirs) < maxWatched {
				dirs = append(dirs, path)
			}
			return nil // what cannot be read is refused when the rules are loaded
		})
	}
	for _, d := range dirs {
		if err := w.Add(d); err != nil {
			a.log.Warn("directory is not watched for changes", zap.String("dir", d), zap.Error(err))
		}
	}
}

// concerns reports whether a change of the file can change settings or rules.
func (a *Agent) concerns(name string) bool {
	name, err := filepath.Abs(name)
	if err != nil {
		return false
	}
	if a.o.ConfigFile != "" {
		if file, err := filepath.Abs(a.o.ConfigFile); err == nil && name == file {
			return true
		}
	}
	for _, p := range a.cfg.Load().Rules.Paths {
		if name == p {
			return true
		}
		if rel, err := filepath.Rel(p, name); err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
			continue
		}
		switch filepath.Ext(name) {
		case ".yml", ".yaml":
			return true
		case "": // perhaps a folder that came or went
			return true
		}
	}
	return false
}
