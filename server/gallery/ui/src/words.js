const words = {
  en: {
    close: 'Close', zoom: 'Zoom', previous: 'Previous photo', next: 'Next photo', details: 'Details (i)', download: 'Download the original (d)',
    page: 'Open the photo’s page', of: (i, n) => `Photo ${i} of ${n}`, failed: 'The photo cannot be loaded.', noDetails: 'The details cannot be read just now.',
    lightbox: 'Photos', taken: 'Taken', camera: 'Camera', lens: 'Lens', exposure: 'Exposure', focal: 'Focal length', size: 'Size', file: 'File', place: 'Place',
  },
  fr: {
    close: 'Fermer', zoom: 'Agrandir', previous: 'Photo précédente', next: 'Photo suivante', details: 'Détails (i)', download: 'Télécharger l’original (d)',
    page: 'Ouvrir la page de la photo', of: (i, n) => `Photo ${i} sur ${n}`, failed: 'La photo ne peut pas être chargée.', noDetails: 'Les détails ne peuvent pas être lus.',
    lightbox: 'Photos', taken: 'Prise le', camera: 'Appareil', lens: 'Objectif', exposure: 'Pose', focal: 'Focale', size: 'Dimensions', file: 'Fichier', place: 'Lieu',
  },
}
export const lang = document.documentElement.lang === 'fr' ? 'fr' : 'en'
export const w = words[lang]
