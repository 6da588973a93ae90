//! What mailboxes are for, by their names, where no attribute says so: as Outlook and Exchange name them in the language
//! in which the account was opened.

use super::{Listed, Role};

/// The names of each, in English first; compared without regard to case.
const NAMES: [(Role, &[&str]); 5] = [
    (
        Role::Trash,
        &[
            "Deleted Items",
            "Deleted",
            "Trash",
            "Gelöschte Elemente",
            "Gelöscht",
            "Éléments supprimés",
            "Elementos eliminados",
            "Eliminados",
            "Posta eliminata",
            "Verwijderde items",
            "Itens Excluídos",
            "Itens Eliminados",
            "Elementy usunięte",
            "Borttaget",
            "Slettede elementer",
            "Slettet post",
            "Poistetut",
            "Odstraněná pošta",
            "Törölt elemek",
            "Удаленные",
            "Видалені",
            "Silinmiş Öğeler",
            "Διαγραμμένα",
            "削除済みアイテム",
            "已删除邮件",
            "已刪除的郵件",
            "지운 편지함",
        ],
    ),
    (
        Role::Sent,
        &[
            "Sent Items",
            "Sent",
            "Gesendete Elemente",
            "Gesendet",
            "Éléments envoyés",
            "Elementos enviados",
            "Enviados",
            "Posta inviata",
            "Verzonden items",
            "Itens Enviados",
            "Elementy wysłane",
            "Wysłane",
            "Skickat",
            "Sendte elementer",
            "Sendt post",
            "Lähetetyt",
            "Odeslaná pošta",
            "Elküldött elemek",
            "Отправленные",
            "Надіслані",
            "Gönderilmiş Öğeler",
            "Απεσταλμένα",
            "送信済みアイテム",
            "已发送邮件",
            "寄件備份",
            "보낸 편지함",
        ],
    ),
    (
        Role::Drafts,
        &[
            "Drafts",
            "Entwürfe",
            "Brouillons",
            "Borradores",
            "Bozze",
            "Concepten",
            "Rascunhos",
            "Wersje robocze",
            "Utkast",
            "Kladder",
            "Luonnokset",
            "Koncepty",
            "Piszkozatok",
            "Черновики",
            "Чернетки",
            "Taslaklar",
            "Πρόχειρα",
            "下書き",
            "草稿",
            "임시 보관함",
        ],
    ),
    (
        Role::Junk,
        &[
            "Junk Email",
            "Junk",
            "Junk E-Mail",
            "Junk-E-Mail",
            "Courrier indésirable",
            "Correo no deseado",
            "Posta indesiderata",
            "Ongewenste e-mail",
            "Lixo Eletrônico",
            "E-mail de Lixo",
            "Wiadomości-śmieci",
            "Skräppost",
            "Uønsket e-mail",
            "Søppelpost",
            "Roskaposti",
            "Nevyžádaná pošta",
            "Levélszemét",
            "Нежелательная почта",
            "Небажана пошта",
            "Önemsiz E-posta",
            "Ανεπιθύμητη αλληλογραφία",
            "迷惑メール",
            "垃圾邮件",
            "垃圾郵件",
            "정크 메일",
        ],
    ),
    (
        Role::Archive,
        &[
            "Archive",
            "Archiv",
            "Archives",
            "Archivo",
            "Archivio",
            "Archief",
            "Arquivo Morto",
            "Archiwum",
            "Arkiv",
            "Arkisto",
            "Archív",
            "Archívum",
            "Архив",
            "Архів",
            "Arşiv",
            "Αρχειοθέτηση",
            "アーカイブ",
            "存档",
            "封存",
            "보관",
        ],
    ),
];

/// Gives a role that no mailbox has to the one that is named like it, at the top level. The first name that is found
/// in the table has it; what an attribute says is never changed.
pub(super) fn complete(mailboxes: &mut [Listed]) {
    for (role, names) in NAMES {
        if mailboxes.iter().any(|m| m.role == Some(role)) {
            continue;
        }
        let find = |name: &&str| {
            let name = name.to_lowercase();
            mailboxes.iter().position(|m| m.role.is_none() && m.selectable && m.name.as_str().to_lowercase() == name)
        };
        if let Some(at) = names.iter().find_map(find) {
            mailboxes[at].role = Some(role);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::RawName;

    fn listed(name: &str, role: Option<Role>) -> Listed {
        Listed { name: name.into(), raw: RawName::new(name.as_bytes()), role, selectable: true, status: None }
    }

    #[test]
    fn a_name_gives_a_role_that_no_attribute_gave() {
        let mut mailboxes = vec![
            listed("Deleted", Some(Role::Trash)),
            listed("Deleted Items", None),
            listed("éléments ENVOYÉS", None),
            listed("Old/Drafts", None),
            listed("Junk", None),
            listed("Junk Email", None),
        ];
        complete(&mut mailboxes);
        let roles: Vec<_> = mailboxes.iter().map(|m| m.role).collect();
        assert_eq!(roles, [Some(Role::Trash), None, Some(Role::Sent), None, None, Some(Role::Junk)]);
    }
}
