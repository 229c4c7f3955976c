package spool

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// TakeLoss returns the losses not told of yet; false if there are none. The caller makes a record of them, with the loss's ID
// and Time as the record's own, appends it, and calls ReportLoss with the ID.
//
// Until then TakeLoss returns the same loss again, after a crash too; what is lost meanwhile comes in a later one. So a loss is
// never forgotten, and one that was appended twice is the same record twice, which the receiver tells by its ID.
func (s *Spool) TakeLoss() (Loss, bool, error) {
	s.turn()
	defer s.over()
	if s.closed {
		return Loss{}, false, ErrClosed
	}
	if s.state.Offer == nil {
		lost := s.state.Dropped.sub(s.state.Reported)
		if lost.Total() == 0 {
			return Loss{}, false, nil
		}
		id, err := uuid.NewV7()
		if err != nil {
			return Loss{}, false, fmt.Errorf("take spool losses: %w", err)
		}
		st := s.state
		st.Offer = &Loss{ID: id.String(), Time: time.Now().UTC().Round(0), Losses: lost}
		if err := s.save(st); err != nil {
			return Loss{}, false, fmt.Errorf("take spool losses: %w", err)
		}
	}
	return *s.state.Offer, true, nil
}

// ReportLoss says that the loss with this ID was appended somewhere durable. An ID that is not on offer changes nothing.
func (s *Spool) ReportLoss(id string) error {
	s.turn()
	defer s.over()
	if s.closed {
		return ErrClosed
	}
	st := s.state
	if st.Offer == nil || st.Offer.ID != id {
		return nil
	}
	st.Reported = st.Reported.plus(st.Offer.Losses)
	st.Offer = nil
	return s.save(st)
}

// CountFull counts n records that the caller gave up because Append kept returning ErrFull, so that they are told of
// with the other losses. It needs no space on disk.
func (s *Spool) CountFull(n int) error {
	s.turn()
	defer s.over()
	if s.closed {
		return ErrClosed
	}
	if n <= 0 {
		return nil
	}
	st := s.state
	st.Dropped.Full += uint64(n)
	return s.save(st)
}
